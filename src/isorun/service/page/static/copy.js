// A run that is started again: from here, or as a command and as a program from anywhere that can reach this service.

import { ask, tell, warn } from "./dom.js";

/** What POST /v1/runs takes to run the same again. */
export function asked(run) {
  const body = { code: run.code };
  for (const name of ["contract", "timeout_s", "prog_name", "tools"]) if (run[name] !== null && run[name] !== undefined && run[name] !== "") body[name] = run[name];
  const inputs = (run.inputs ?? []).map((one) => one.id).filter(Boolean);
  if (inputs.length) body.inputs = inputs;
  const turn = /^turn_([^/]+)\//.exec(body.contract?.[0]?.filename ?? "");
  if (turn) body.turn_id = turn[1];
  return body;
}

export function curl(body) {
  const json = JSON.stringify(body, null, 1).replaceAll("'", "'\\''");
  return `curl -s ${location.origin}/v1/runs -H "Authorization: Bearer $ISORUN_KEY" -H 'Content-Type: application/json' -H 'Prefer: wait=60' --data-binary '${json}'\n`;
}

export function python(body) {
  const { code, ...rest } = body;
  const lines = code.match(/[^\n]*\n|[^\n]+$/g) ?? [""];
  return `import json, os, urllib.request

code = (
${lines.map((line) => `    ${JSON.stringify(line)}`).join("\n")}
)
asked = {"code": code, **${literal(rest)}}
request = urllib.request.Request(
    "${location.origin}/v1/runs",
    json.dumps(asked).encode(),
    {"Authorization": f"Bearer {os.environ['ISORUN_KEY']}", "Content-Type": "application/json", "Prefer": "wait=60"},
)
with urllib.request.urlopen(request) as answer:
    run = json.load(answer)
print(run["status"])
print((run["result"] or {}).get("stdout", ""), end="")
`;
}

/** A JSON value as Python writes it. */
function literal(value) {
  if (value === null || value === undefined) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object") return `{${Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${literal(one)}`).join(", ")}}`;
  return JSON.stringify(value);
}

/** Run *run* again by *begun*, with the very files that it was given. */
export async function repeat(run, begun) {
  const lost = (input) => new Error(`${input.name}, which it was given, is not here any more. Add it again under Code.`);
  const unknown = run.inputs.find((input) => !input.id);
  if (unknown) throw lost(unknown);
  try {
    await begun(asked(run));
  } catch (error) {
    const gone = error.code === "unknown_file" && run.inputs[/^file (\d+)/.exec(error.message)?.[1] - 1];
    throw gone ? lost(gone) : error;
  }
}

/** Copy the run in the *form* curl, python or code. */
export async function copyRun(id, form) {
  const run = await ask("GET", `/v1/runs/${encodeURIComponent(id)}`);
  await copy(form === "code" ? run.code : form === "curl" ? curl(asked(run)) : python(asked(run)));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    if (!copyOld(text)) return warn("The browser does not let this page copy.");
  }
  tell("Copied");
}

/** Without TLS a browser has no clipboard for pages, but for this machine's own. */
function copyOld(text) {
  const place = document.createElement("textarea");
  place.value = text;
  document.body.append(place);
  place.select();
  const done = document.execCommand("copy");
  place.remove();
  return done;
}
