# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the modules share: the program, and what it prints as JSON."""

from __future__ import annotations

import json
import os
import shutil
import tempfile

# The version of the JSON that these modules know.
VERSION = 1

# Options of each module that writes a file.
CONTENTS = {
    "config": {"type": "dict"},
    "content": {"type": "str"},
}

ARGUMENTS = {
    "executable": {"type": "str", "default": "mountjail"},
    "config_dir": {"type": "path"},
    "state_dir": {"type": "path"},
    "timeout": {"type": "int"},
}

# What a play would have written before, in check mode.
ASSUMED = {
    "assumed": {
        "type": "dict",
        "options": {
            "defaults": {"type": "dict"},
            "presets": {"type": "dict"},
            "sites": {"type": "dict"},
        },
    },
}

NOT_INSTALLED = "mountjail is not installed on this host yet; check mode compares files alone"


class Mountjail:
    """The program on this host. In check mode it may be missing: the play would install it."""

    def __init__(self, module):
        self.module = module
        self.config_dir = module.params["config_dir"] or "/etc/mountjail"
        self.staged = None
        self.program = find(module)
        if self.program is None:
            module.warn(NOT_INSTALLED)

    @property
    def is_missing(self):
        return self.program is None

    def assume(self, files):
        """Has the next commands see these files of the configuration, by their relative paths. A
        file whose text is None is not there. Nothing on the host is changed, and what commands
        print has the paths of the host."""
        if self.staged is None and files:
            self.staged = tempfile.mkdtemp(dir=self.module.tmpdir)
            if os.path.isdir(self.config_dir):
                shutil.copytree(
                    self.config_dir, self.staged, symlinks=True, dirs_exist_ok=True
                )
            os.makedirs(os.path.join(self.staged, "sites"), exist_ok=True)
        for name, text in files.items():
            path = os.path.join(self.staged, name)
            if text is not None:
                write(path, text)
            elif os.path.lexists(path):
                os.unlink(path)

    def command(self, arguments):
        return self.command_with(self.staged or self.module.params["config_dir"], arguments)

    def command_with(self, config_dir, arguments):
        options = []
        for option, value in (
            ("--config-dir", config_dir),
            ("--state-dir", self.module.params["state_dir"]),
            ("--timeout", self.module.params["timeout"]),
        ):
            if value is not None:
                options += [option, str(value)]
        return [self.program] + options + arguments + ["--json"]

    def results(self, arguments, data=None):
        """Runs a command; returns its object, in which sites may have failed."""
        command = self.command(arguments)
        code, out, err = self.module.run_command(command, data=data, binary_data=True)
        if self.staged is not None:
            out, err = (text.replace(self.staged, self.config_dir) for text in (out, err))
        try:
            result = json.loads(out)
        except ValueError:
            self.module.fail_json(
                msg=(err or out).strip() or "mountjail printed nothing",
                rc=code,
                cmd=command,
            )
        if result.get("version") != VERSION:
            self.module.fail_json(
                msg="this mountjail's JSON has the version %s, and this collection knows %s"
                % (result.get("version"), VERSION)
            )
        if result.get("errors"):
            self.fail(result["errors"], code, err)
        return code, result, err

    def run(self, arguments, data=None):
        """Runs a command; returns its object. Anything that failed ends the module."""
        code, result, err = self.results(arguments, data)
        errors = []
        for site in result.get("sites", []):
            errors += site.get("errors", []) + site.get("conflicts", [])
        # 3: differences were found.
        if errors or code not in (0, 3):
            self.fail(errors, code, err)
        return result

    def fail(self, errors, code, err):
        reasons = [
            error["reason"] + ("; try: " + error["remedy"] if error.get("remedy") else "")
            for error in errors
        ]
        message = "\n".join(reasons) or err.strip()
        self.module.fail_json(msg=message, errors=errors, rc=code, stderr=err)


def find(module):
    """The program's path; None: it is missing, and nothing is to be changed."""
    program = module.params["executable"]
    if os.sep not in program:
        return module.get_bin_path(program, required=not module.check_mode)
    if module.check_mode and not os.path.exists(program):
        return None
    return program


def assumed(module):
    """The files that O(assumed) stands for; none unless in check mode."""
    given = module.params["assumed"]
    if not given or not module.check_mode:
        return {}
    files = {}
    if given["defaults"] is not None:
        files["defaults.yaml"] = to_yaml(given["defaults"])
    for part in ("presets", "sites"):
        for name, config in (given[part] or {}).items():
            files["%s/%s.yaml" % (part, name)] = None if config is None else to_yaml(config)
    return files


def is_changed(sites):
    """Whether a command changed any of these sites, or would do so."""
    return any(
        site.get("changed") or site.get("steps") or site.get("new_root") for site in sites
    )


def is_up(site):
    """Whether anything of a site of C(status) is mounted, on the host or in a service."""
    return any(place.get("state", "down") != "down" for place in site.get("places", [site]))


def to_yaml(value):
    """A manifest from a dictionary: the same text each time, without a library for YAML."""
    lines = ["# Managed by Ansible"]
    for key, item in value.items():
        if isinstance(item, list) and item:
            lines.append("%s:" % key)
            lines += ["  - " + json.dumps(one, ensure_ascii=False) for one in item]
        else:
            lines.append("%s: %s" % (key, json.dumps(item, ensure_ascii=False)))
    return "\n".join(lines) + "\n"


def text_of(module):
    """The text that C(config) or C(content) gives; None: neither is given."""
    config = module.params["config"]
    return module.params["content"] if config is None else to_yaml(config)


def write(path, text):
    """Writes a new file, and the directories above it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as written:
        written.write(text)
    os.chmod(path, 0o644)


def put(module, text, file):
    """Has the text take its place at once. If there is a link, the file that it names is replaced."""
    new = os.path.join(tempfile.mkdtemp(dir=module.tmpdir), os.path.basename(file))
    write(new, text)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    module.atomic_move(new, os.path.realpath(file))


def text_diff(file, before, after):
    """What Ansible shows of a file with --diff."""
    return {
        "before_header": file,
        "after_header": file,
        "before": before or "",
        "after": after or "",
    }


def diffs(diff):
    """What Ansible shows with --diff, from a `diff` of mountjail."""
    found = []
    manifest = diff["manifest"]
    if manifest["before"] != manifest["after"]:
        found.append(text_diff(manifest["file"], manifest["before"], manifest["after"]))
    mounts = diff["mounts"]
    if mounts and mounts["before"] != mounts["after"]:
        text = {key: "".join(line + "\n" for line in mounts[key]) for key in mounts}
        found.append({"before_header": "mounts", "after_header": "mounts", **text})
    return found


def read(path):
    """The text of a file; None: there is none."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace")
    except FileNotFoundError:
        return None
