"""Files that a run hands out: what they lead to, and what they pretend to be."""

from functools import partial

from isorun.cli.attacks.attack import Attack, ended_well

KIND = "Artifacts"
_attack = partial(Attack, KIND)


def _promise(name: str) -> tuple[dict[str, object], ...]:
    return ({"filename": f"turn_1/files/{name}", "description": "what was promised"},)


def _instead(name: str, what: str, code: str, honest: str = "open(P, 'w').write('fine')") -> Attack:
    """A promised file *name* that is something else; *honest* writes what was promised."""
    begin = (
        f"import io, shutil, tarfile, zipfile\nP = 'turn_1/files/{name}'\nos.makedirs('turn_1/files', exist_ok=True)\n"
    )
    return _attack(what, begin + code, honest=begin + honest, judge=ended_well, contract=_promise(name))


_ZIP = "with zipfile.ZipFile(P, 'w') as z:\n    z.writestr({name!r}, 'x')"

ATTACKS = (
    _instead("a.md", "a link to a file of the host", "os.symlink('{canary}', P)"),
    _instead("a.md", "a hard link to a file outside", "os.link('/etc/passwd', P) if can(lambda: os.stat(P)) else None"),
    _instead("a.md", "a FIFO, on which the reader would wait", "os.mkfifo(P)"),
    _instead("a.md", "a folder", "os.mkdir(P)"),
    _instead("a.md", "an empty file", "open(P, 'w').close()"),
    _instead("a.json", "a file that is not of its type", "open(P, 'w').write('{')", "open(P, 'w').write('{}')"),
    _instead(
        "a.zip",
        "an archive with a name that leads out",
        _ZIP.replace("{name!r}", "'../../evil.txt'"),
        _ZIP.replace("{name!r}", "'fine.txt'"),
    ),
    _instead(
        "a.zip",
        "an archive with nothing in it",
        "zipfile.ZipFile(P, 'w').close()",
        _ZIP.replace("{name!r}", "'fine.txt'"),
    ),
    _instead(
        "a.tar",
        "an archive with a link in it",
        """
with tarfile.open(P, "w") as t:
    link = tarfile.TarInfo("evil")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    t.addfile(link)
""",
        """
with tarfile.open(P, "w") as t:
    file = tarfile.TarInfo("fine.txt")
    file.size = 1
    t.addfile(file, io.BytesIO(b"x"))
""",
    ),
    _instead(
        "a.xlsx",
        "an archive that unpacks to more than a host has",
        """
with zipfile.ZipFile(P, "w", zipfile.ZIP_DEFLATED) as z:
    with z.open("[Content_Types].xml", "w", force_zip64=True) as f:
        for _ in range(600):
            f.write(bytes(1 << 20))
""",
        "import openpyxl\nbook = openpyxl.Workbook()\nbook.active['A1'] = 1\nbook.save(P)",
    ),
    _attack(
        "a forged result.json",
        "open('result.json', 'w').write('{\"status\": \"{token}\"}')",
        judge=lambda result: False,
        checks=("no forged result",),
        no_control="the host writes its own after the program is dead, in any case",
    ),
    _attack(
        "a forged log of isorun's",
        "os.makedirs('logs', exist_ok=True); open('logs/infra.log', 'w').write('{token}')",
        judge=lambda result: False,
        checks=("no forged log",),
        no_control="the host writes its own after the program is dead, in any case",
    ),
)
