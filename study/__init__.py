"""The experiments: trials on Ray or in this process, their records, and what is read from them."""

from mipoison._moved import redirect

redirect(
    {
        "study.again": "study.trial.rerun",
        "study.bench.rows": "study.bench.measurement",
        "study.cluster": "study.executors.ray_executor",
        "study.crew": "study.executors.worker_group",
        "study.cut": "study.search.pruning",
        "study.driver": "study.session.driver",
        "study.endpoint": "study.serving.endpoint",
        "study.fresh": "study.session.reevaluation",
        "study.frontier": "study.analysis.frontier",
        "study.group": "study.trial.ranks",
        "study.indicators": "study.analysis.indicators",
        "study.intake": "study.serving.request_parsing",
        "study.local": "study.executors.local",
        "study.lock": "study.session.lease",
        "study.monitoring": "study.session.monitoring",
        "study.opening": "study.session.opening",
        "study.page": "study.reports.html",
        "study.paper.render": "study.paper.tables",
        "study.pictures": "study.records.images",
        "study.preparation": "study.trial.preparation",
        "study.progress": "study.runtime.progress",
        "study.quality": "study.session.quality",
        "study.rayenv": "study.executors.environment",
        "study.reporting": "study.reports.report_files",
        "study.simulation": "study.bench.simulated_cluster",
        "study.space": "study.search.space",
        "study.spec": "study.trial.spec",
        "study.spot": "study.executors.aws_spot",
        "study.tally": "study.executors.progress_actor",
        "study.together": "study.trial.joint_training",
        "study.tuning": "study.executors.tune",
        "study.worker": "study.trial.worker",
    }
)
