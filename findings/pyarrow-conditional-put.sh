#!/usr/bin/env bash
# A conditional put to S3 through pyarrow.
#
# One would guess: S3FileSystem.open_output_stream(path, metadata={"If-None-Match": "*"}) writes an object only where there
# is none yet, for metadata are "passed through" and Content-Type among them is; or else it raises an error.
# What happens: nothing is raised, and the object that is there is overwritten. Through boto3 the same store refuses the
# same put with 412. So nothing that must be exclusive (a lock, a claim of a run) can stand on a put by pyarrow.
#
# Installs into a temporary folder, which goes afterwards. The store is moto's server on the loopback.
set -euo pipefail
work=$(mktemp -d)
trap 'kill "${server:-}" 2>/dev/null || true; rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "pyarrow==26.0.1" "boto3==1.44.5" "moto[server]==5.2.5"
port=$("$work/venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
"$work/venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$work/server.log" 2>&1 &
server=$!
PORT=$port AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none "$work/venv/bin/python" - <<'PYTHON'
import os
import socket
import time

import boto3
import pyarrow
from botocore.exceptions import ClientError
from pyarrow.fs import S3FileSystem

address = f"127.0.0.1:{os.environ['PORT']}"
for _ in range(150):
    with socket.socket() as trial:
        if trial.connect_ex(("127.0.0.1", int(os.environ["PORT"]))) == 0:
            break
    time.sleep(0.2)
client = boto3.client("s3", endpoint_url=f"http://{address}", region_name="us-east-1")
client.create_bucket(Bucket="runs")
client.put_object(Bucket="runs", Key="claim", Body=b"first", IfNoneMatch="*")
try:
    client.put_object(Bucket="runs", Key="claim", Body=b"second", IfNoneMatch="*")
    by_boto3 = "overwritten"
except ClientError as error:
    by_boto3 = f"refused ({error.response['ResponseMetadata']['HTTPStatusCode']})"
store = S3FileSystem(endpoint_override=address, scheme="http", region="us-east-1")
try:
    with store.open_output_stream("runs/claim", metadata={"If-None-Match": "*"}) as stream:
        stream.write(b"second")
    by_pyarrow = "no error"
except OSError as error:
    by_pyarrow = f"refused ({error})"
content = client.get_object(Bucket="runs", Key="claim")["Body"].read().decode()
print(f"pyarrow {pyarrow.__version__}, boto3 {boto3.__version__}")
print(f"a put if there is none, where there is one: by boto3 {by_boto3}; by pyarrow {by_pyarrow}, and there is {content!r}")
as_found = by_boto3 == "refused (412)" and by_pyarrow == "no error" and content == "second"
raise SystemExit(0 if as_found else "the behaviour has changed")
PYTHON
