"""MLflow: one run of an experiment, which restarts continue.

MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME and others are MLflow's own variables; without the first
one MLflow writes to the current folder.
"""

import os
import time
from collections.abc import Mapping

import mlflow
import numpy as np
from flax import traverse_util
from mlflow.entities import Metric, Param

from vidjax.writers import PROJECT, Start, Writer

_PARAMS = 100  # that MLflow takes at once


class Mlflow(Writer):
    """Logs metrics, images and the config's keys; by a client, which has no state for all threads.

    Parameters of an MLflow run cannot change: keys that a restart changes keep their first values.
    """

    def __init__(self, start: Start):
        self._client = mlflow.MlflowClient()
        self._id = start.service_id("mlflow")
        if self._id:
            self._client.update_run(self._id, status="RUNNING")
        else:
            self._id = self._create(start.name)
            start.keep_id("mlflow", self._id)
        data = self._client.get_run(self._id).data
        steps = [m.step for k in data.metrics for m in self._client.get_metric_history(self._id, k)]
        self.last_step = max(steps, default=0)
        config = traverse_util.flatten_dict(dict(start.config), sep=".")
        new = [Param(key, str(x)) for key, x in config.items() if key not in data.params]
        for i in range(0, len(new), _PARAMS):
            self._client.log_batch(self._id, params=new[i : i + _PARAMS])
        self.place = f"run {self._id} of {mlflow.get_tracking_uri()}"

    def _create(self, name: str) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        folder = found.experiment_id if found else self._client.create_experiment(experiment)
        return self._client.create_run(folder, run_name=name).info.run_id

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [Metric(key, value, now, step) for key, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        for name, image in images.items():
            self._client.log_image(self._id, image, key=name, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._id)


WRITER = Mlflow
