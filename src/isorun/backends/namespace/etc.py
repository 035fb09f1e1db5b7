"""The files of /etc that isorun writes: what ordinary programs read without asking, with nothing of the host in it.

The same text on every machine and for every run. What of the host's own /etc is shown is listed in
`sandbox_runner.namespace.bubblewrap`.
"""

from isorun.executor import rules

#: By path. Programs ask for the owner of a system file (root, or 65534 where it is nobody's here), and tarfile for the
#: names of both: these three accounts are what such a question can meet.
SYNTHETIC = {
    "/etc/passwd": (
        "root:x:0:0:root:/root:/usr/sbin/nologin\n"
        f"isorun:x:{rules.UID}:{rules.GID}:isorun:/tmp:/bin/sh\n"
        "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
    ),
    "/etc/group": f"root:x:0:\nisorun:x:{rules.GID}:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "/etc/hostname": f"{rules.HOSTNAME}\n",
    "/etc/os-release": 'NAME="Linux"\nID=linux\nPRETTY_NAME="Linux in an isorun sandbox"\n',
    "/etc/machine-id": f"{b'isorun'.hex():0<32}\n",  # 32 hexadecimal digits, as its format wants
}
