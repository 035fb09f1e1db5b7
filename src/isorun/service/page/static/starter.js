// The program of a card of the first page, with the files that it reads.

import { ask } from "./dom.js";

/** Send a file of the service's own as one of the user's. */
async function brought(name) {
  const form = new FormData();
  form.append("file", await (await fetch(`/starters/files/${name}`)).blob(), name);
  return ask("POST", "/v1/files", form);
}

/** Start the program of the card *name* by *begun*. */
export async function starter(name, begun) {
  const { asks, inputs } = await ask("GET", `/starters/${name}`);
  const kept = inputs.length ? (await ask("GET", "/v1/files")).files : [];
  const ids = [];
  for (const { name, sha256 } of inputs) ids.push((kept.find((file) => file.name === name && file.sha256 === sha256) ?? (await brought(name))).id);
  await begun({ ...asks, inputs: ids });
}
