// Colours for Python without a change of its text: ranges over one text node (CSS Custom Highlight API).

const TOKENS = new RegExp(
  [
    String.raw`(?<note>#[^\n]*)`,
    String.raw`(?<text>[rRbBfFuU]{0,2}(?:"""(?:[^\\]|\\[^])*?(?:"""|$)|'''(?:[^\\]|\\[^])*?(?:'''|$)|"(?:[^"\\\n]|\\[^])*"?|'(?:[^'\\\n]|\\[^])*'?))`,
    String.raw`(?<word>\b(?:False|None|True|and|as|assert|async|await|break|case|class|continue|def|del|elif|else|except|finally|for|from|global|if|import|in|is|lambda|match|nonlocal|not|or|pass|raise|return|try|while|with|yield)\b)`,
    String.raw`(?<number>\b\d[\w.]*)`,
    String.raw`[\p{L}_][\p{L}\p{N}_]*`,
  ].join("|"),
  "gu",
);
const MOST = 60_000; // characters: a longer program is shown plain

/** Colour the program in *node*. */
export function colour(node) {
  if (!globalThis.CSS?.highlights || !node || node.length > MOST) return;
  for (const found of node.data.matchAll(TOKENS)) {
    const kind = Object.keys(found.groups).find((name) => found.groups[name] !== undefined);
    if (!kind) continue;
    const range = new StaticRange({ startContainer: node, startOffset: found.index, endContainer: node, endOffset: found.index + found[0].length });
    const name = `py-${kind}`;
    if (!CSS.highlights.has(name)) CSS.highlights.set(name, new Highlight());
    CSS.highlights.get(name).add(range);
  }
}
