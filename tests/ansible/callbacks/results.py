"""Prints what became of each task on each host as JSON."""

import json

from ansible.plugins.callback import CallbackBase


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "results"

    def __init__(self):
        super().__init__()
        self.tasks = []

    def add(self, result, **more):
        found = json.loads(self._dump_results(result._result))
        task = {"host": result._host.get_name(), "name": result._task.name}
        self.tasks.append({**task, "result": {**found, **more}})

    v2_runner_on_ok = v2_runner_on_skipped = lambda self, result, **_: self.add(result)

    def v2_runner_on_failed(self, result, **_):
        self.add(result, failed=True)

    def v2_runner_on_unreachable(self, result):
        self.add(result, failed=True)

    def v2_playbook_on_stats(self, stats):
        hosts = {host: stats.summarize(host) for host in stats.processed}
        print(json.dumps({"tasks": self.tasks, "stats": hosts}))
