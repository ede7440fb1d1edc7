#!/usr/bin/python
# -*- coding: utf-8 -*-
# Copyright: the mountjail developers
# SPDX-License-Identifier: MIT OR Apache-2.0

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Write the drop-ins that start services after their mounts
version_added: 0.2.0
description:
  - Has the drop-ins for systemd of all sites as C(mountjail units --all --install) writes them, and
    removes those that no site needs any more. systemd reads its units again.
author:
  - mountjail developers (@mountjail)
options:
  directory:
    description:
      - The directory of the units.
    type: path
    default: /etc/systemd/system
extends_documentation_fragment:
  - mountjail.mountjail.common
  - mountjail.mountjail.assumed
attributes:
  diff_mode:
    support: full
    description: Shows the lines that are missing, and those that are too many.
seealso:
  - module: mountjail.mountjail.site
"""

EXAMPLES = r"""
- name: Start services after their mounts
  mountjail.mountjail.units:
"""

RETURN = r"""
files:
  description: The drop-ins that differed, each with C(file), C(how), C(missing) and C(unexpected).
  returned: success
  type: list
  elements: dict
  sample:
    [
      {
        "file": "/etc/systemd/system/php8.2-fpm.service.d/50-mountjail.conf",
        "how": "missing",
        "missing": [],
        "unexpected": [],
      },
    ]
"""

import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.mountjail.mountjail.plugins.module_utils.mountjail import (
    ARGUMENTS,
    ASSUMED,
    Mountjail,
    assumed,
    text_diff,
)


def compared(module):
    """What files alone tell, on a host that has no mountjail yet."""
    given = module.params["assumed"] or {}
    manifests = [given.get("defaults"), *(given.get("sites") or {}).values()]
    return any(manifest and manifest.get("services") for manifest in manifests)


class Bound(Mountjail):
    """Drop-ins say which configuration they are of. So what is assumed is seen in its place, by a
    bind that nothing else sees."""

    BIND = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'

    def command(self, arguments):
        if self.staged is None or not os.path.isdir(self.config_dir):
            return super().command(arguments)
        alone = ["unshare", "--mount", "--propagation", "private"]
        bind = ["sh", "-c", self.BIND, "sh", self.staged, self.config_dir]
        return alone + bind + self.command_with(self.module.params["config_dir"], arguments)


def diff_of(files):
    text = {
        key: "".join(
            "%s: %s\n" % (file["file"], line)
            for file in files
            for line in file[key] or [file["how"]]
        )
        for key in ("missing", "unexpected")
    }
    return text_diff("drop-ins", text["unexpected"], text["missing"])


def main():
    module = AnsibleModule(
        argument_spec=dict(
            directory=dict(type="path", default="/etc/systemd/system"), **ARGUMENTS, **ASSUMED
        ),
        supports_check_mode=True,
    )
    program = Bound(module)
    program.assume(assumed(module))
    if program.is_missing:
        module.exit_json(changed=compared(module), files=[])
    command = ["units", "--all", "--dir", module.params["directory"]]
    found = program.run(command + ["--check"])
    if not found["in_sync"] and not module.check_mode:
        program.run(command + ["--install"])
    files = found["files"]
    module.exit_json(changed=not found["in_sync"], files=files, diff=diff_of(files))


if __name__ == "__main__":
    main()
