"""The table of environment variables in docs/exec/operations.md: made from the settings' own model. For contributors.

    python tools/docs/settings_table.py            # print it
    python tools/docs/settings_table.py --write    # put it into the page
    python tools/docs/settings_table.py --check    # exit 1 if that would change the page

A setting without an entry in `MEANING` is an error, so a new setting comes with its line.
"""

import sys
from pathlib import Path

from isorun.settings import _RULES, Settings

PAGE = Path(__file__).parents[2] / "docs" / "exec" / "operations.md"
BEGIN, END = "### All of them\n", "\n### Read by others\n"  # the headings that it stands between
_COUNTLESS = 2**53  # the most that such a setting takes
#: Field of `Settings` -> what it does, and for whom.
MEANING = {
    "env_file": "a file of settings that is read whole; of the process environment alone",
    "backend": "`auto` is namespace, else docker",
    "program_python": "the interpreter of programs; default: the one that isorun runs in; docker: the image's own",
    "preload": "modules that are imported before a program comes, with commas between them",
    "pool_size": "executors that wait; 0: each is made when it is asked for",
    "max_runs": "programs at once in a Runtime; the others wait in a queue; default: no ceiling",
    "zygote_runs": "runs before the process that forks executors is replaced",
    "workspace_root": "folder of the runs; default: `/exec-workspace` in a container that has it, else `/tmp`",
    "bundle": "folder of the bundle whose tools programs may call",
    "tool_env": "names of variables that a bundle's tools may see, with commas between them",
    "builtin_tools": "1 offers built-in tools beside a bundle's, and to runs that name none those without a network",
    "font_path": "further folders of fonts for written documents, with colons between them",
    "search_providers": "`searxng`, `brave`, `tavily`, `ddgs`, `fixture`, in their order; default: what is set up",
    "search_fixture": "a JSON file of searches and their results, for tests and demonstrations",
    "searxng_url": "a SearXNG that answers as JSON",
    "brave_url": "where Brave Search answers",
    "tavily_url": "where Tavily answers",
    "web_proxy": "a proxy that pages are fetched through, which must then refuse private addresses itself",
    "brave_api_key": "for the built-in search alone",
    "tavily_api_key": "for the built-in search alone",
    "tool_runtime": "where tools run: `none`, `local`, `local_network` or `docker`; beats a bundle's `TOOL_RUNTIME`",
    "retention_hours": "runs older than this are removed by a Runtime, after its first run, and by `isorun cleanup`",
    "session_retention_hours": "sessions that were last used longer ago are removed at the same times",
    "cgroup_parent": "control group that runs are made below; default: the one isorun is in",
    "allow_loopback": '0 refuses runs with `network="loopback"` (`--loopback`)',
    "advertise_side_effect_tool": "whether a model is offered the tool without a contract",
    "require": "for the tests: facilities whose lack is a failure and no skip",
    "executor_uid": "real uid of programs; with namespace only if isorun is root; unset: an id that no account has",
    "executor_gid": (
        "real gid of programs; with namespace, unset: an id that no account has; with docker one of isorun's groups, "
        "unless isorun is root"
    ),
    "user_log_mode": "where `logging.*` of programs goes",
    "traceback_remap": "0 shows the loader's frames too",
    "keep_value": "0 keeps no value of a program's last expression",
    "save_figures": "0 saves no figure that a program shows or leaves open",
    "image": "image of executors and supervisor; must have the label `isorun.image=1`",
    "docker_runtime": "runtime of executor containers, for example `runsc` (gVisor); default: the daemon's",
    "network_mode": "network of the supervisor, not of programs; `host`, `none`, or with docker a network's name",
    "host_workspace_path": "Docker-in-Docker: the daemon's host's path of the folder of the runs",
    "host_bundles_path": "Docker-in-Docker: the same of `AGENTIC_BUNDLES_ROOT`; needed only if a bundle has tools",
    "host_kb_storage_path": "the daemon's host's path of `/kdcube-storage`, read-only and for the supervisor alone",
    "bundles_root": "where bundles are inside the service's container",
    "site_bundles_root": "where bundles are on the host, for the compose file",
    "user_workspace_root": "example bundle: the users' folders that stay",
    "sandbox_root": "example bundle: the users' folders of one run",
    "data_home": "where the example bundle's folders are if isorun is no checkout",
    "log_dir": "folder of the service's log, `service.log`; default: stderr alone",
    "redis_url": "of the service: several processes share its work; whether it answers is in infra.log",
    "redis_host": "as `REDIS_URL`",
    "redis_port": "as `REDIS_URL`",
    "redis_password": "for the chat service alone; also if `REDIS_URL` has none",
    "database_url": "of the service: its database; default: a file of SQLite; whether it answers is in infra.log",
    "postgres_host": "as `DATABASE_URL`",
    "postgres_port": "as `DATABASE_URL`",
    "postgres_user": "as `DATABASE_URL`",
    "postgres_password": "as `DATABASE_URL`",
    "postgres_db": "as `DATABASE_URL`",
    "service_data": "folder of the service's database and uploads; default: `~/.local/share/isorun/service`",
    "user_runs_at_once": "runs of one user of the service that have not ended",
    "user_runs_per_day": "runs that one user of the service may begin in 24 hours",
    "user_bytes": "bytes of one user's uploads, and of the files of that user's runs",
    "model_url": "of the service's agent: an OpenAI-compatible endpoint, as in `https://models.example/v1`",
    "model": "of the service's agent: the name of its model",
    "model_key": "of the service's agent: the endpoint's key; no program and no supervisor has it",
    "aws_region": "for the supervisor only",
    "aws_default_region": "for the supervisor only",
    "aws_access_key_id": "for the supervisor only",
    "aws_secret_access_key": "for the supervisor only",
    "aws_session_token": "for the supervisor only",
    "aws_profile": "for the supervisor only",
    "aws_ec2_metadata_disabled": "for the supervisor only; `false` where an instance role gives the credentials",
    "aws_sdk_load_config": "for the supervisor only",
    "no_proxy": "for the supervisor only",
    "max_wall_s": "seconds of one run, and the longest `timeout_s` that may be asked for",
    "max_memory_bytes": "memory of one run, with its files in tmpfs",
    "max_processes": "processes and threads of one run together",
    "max_cpus": "CPUs of one run",
    "max_workspace_bytes": "bytes in `work/` and `out/` together",
    "max_workspace_inodes": "files and folders in `work/` and `out/` together",
    "max_file_bytes": "bytes of one file",
    "max_tmp_bytes": "bytes in `/tmp`",
    "max_shm_bytes": "bytes in `/dev/shm`",
    "max_open_files": "open files of one process",
    "max_log_bytes": "bytes of user.log; the middle is cut",
    "max_result_bytes": "bytes of stdout, and of stderr, in the result",
    "max_output_bytes": "bytes printed before a program is ended",
    "max_source_bytes": "bytes of a program's source",
    "max_input_bytes": "bytes of all inputs of one run",
    "max_contract_items": "promised files of one run",
    "max_tool_calls": "tool calls of one run",
    "max_tool_calls_at_once": "tool calls of one run at the same time; the others wait",
    "max_frame_bytes": "bytes of one tool call's parameters, or result",
    "max_tool_call_s": "seconds of one tool call",
    "max_grace_s": "seconds between SIGTERM and the kill",
}


def table() -> str:
    """The table, a line a setting, in the order of `isorun config show`."""
    columns = ("variable", "older names", "default", "value", "from an untrusted file", "what it does")
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    shown = {row.name: row.value for row in Settings().rows()}
    for key, rule in _RULES.items():
        ours, *older = rule.names
        default = "–" if shown[ours] in (None, "") else f"`{shown[ours]}`"
        names = ", ".join(f"`{name}`" for name in older) or "–"
        wants = rule.kind.wants.replace(f" from 1 to {_COUNTLESS}", " above 0")
        rows.append(f"| `{ours}` | {names} | {default} | {wants} | {rule.harmless.says} | {MEANING[key]} |")
    return "\n".join(rows)


def written(text: str) -> str:
    """*text* with the table in its section. Raises `ValueError` if a heading is missing."""
    begin, end = text.index(BEGIN), text.index(END)
    made = "Made by `tools/docs/settings_table.py --write` from the settings' own model."
    return f"{text[:begin]}{BEGIN}\n{made}\n\n{table()}\n{text[end:]}"


def main() -> int:
    """Print the table, write it, or compare it."""
    text = PAGE.read_text(encoding="utf-8")
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(written(text), encoding="utf-8")
    elif sys.argv[1:] == ["--check"]:
        if written(text) != text:
            print(f"{PAGE.name} is not what the settings are: python tools/docs/settings_table.py --write")
            return 1
    else:
        print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
