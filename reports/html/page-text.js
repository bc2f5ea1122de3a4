/* Text that a model wrote. It is shown, never obeyed: control characters and marks that turn the direction of
   writing are spelled out, each text has a direction of its own, and long ones are clipped. */

const CLIP = 4000; // characters shown at first
const PIECE = 16384; // a long text is laid out piece by piece, as it scrolls into view

const UNSEEN = new RegExp("[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\u061c\\u200b\\u200e\\u200f\\u2028-\\u202e"
  + "\\u2060-\\u206f\\ufeff\\u{e0000}-\\u{e007f}\\p{Cs}]", "gu");

function visible(text) {
  return text.replaceAll("\r\n", "\n").replace(UNSEEN, (character) => {
    const code = character.codePointAt(0).toString(16).toUpperCase();
    return `[U+${code.padStart(4, "0")}]`;
  });
}

/* Where to cut, so that no character is halved. */
function cutAt(text, at) {
  if (at >= text.length) return text.length;
  const code = text.charCodeAt(at - 1);
  return code >= 0xd800 && code <= 0xdbff ? at - 1 : at;
}

function longText(text, clip = CLIP) {
  const node = el("div", { class: "text", dir: "auto" });
  if (text.length <= clip * 1.25) {
    node.append(visible(text));
    return node;
  }
  const more = button(`show all ${text.length.toLocaleString("en")} characters`, () => {
    node.replaceChildren(...pieces(text));
    node.tabIndex = -1;
    node.focus();
  });
  node.append(visible(text.slice(0, cutAt(text, clip))), el("span", { class: "cut" }, " … ", more));
  return node;
}

function pieces(text) {
  const found = [];
  for (let from = 0; from < text.length;) {
    const upTo = cutAt(text, from + PIECE);
    const line = text.lastIndexOf("\n", upTo);
    const to = upTo < text.length && line > from ? line + 1 : upTo;
    found.push(el("div", { class: "piece", dir: "auto" }, visible(text.slice(from, to))));
    from = to;
  }
  return found;
}

/* [thinking, answer, whether the thinking never ended]: the rule by which answers are scored. */
function splitThinking(text, prompt) {
  const end = text.lastIndexOf("</think>");
  const answer = end < 0 ? text : text.slice(end + "</think>".length);
  const begun = end < 0 && prompt.trimEnd().endsWith("<think>");
  if (answer.includes("<think>") || begun) return [text, "", true];
  return [end < 0 ? "" : text.slice(0, end).replaceAll("<think>", "").trim(), answer, false];
}
