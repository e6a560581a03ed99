"""Write the reports of runs anew, and compare several."""

from ice_ray.config.jobs import ReportConfig
from ice_ray.workflow.jobs import run
from ice_ray.workflow.reporting import report_job

if __name__ == "__main__":
    raise SystemExit(run(report_job, ReportConfig, "ice_report.py"))
