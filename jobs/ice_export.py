"""Write a pruned model as ONNX or as an exported program."""

from ice_ray.config.jobs import ExportConfig
from ice_ray.workflow.exporting import export_job
from ice_ray.workflow.jobs import run

if __name__ == "__main__":
    raise SystemExit(run(export_job, ExportConfig, "ice_export.py"))
