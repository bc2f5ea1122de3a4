/* The page's data. Tables lie open in it; everything else is packed in blocks (deflate in base64), inside the
   page or in files beside it, and is unpacked when it is looked at. */

const DATA = JSON.parse(document.getElementById("data").textContent);
const KEPT = 24; // unpacked blocks that are kept
const kept = new Map();
const arriving = new Map();

const CHUNK = /^samples\/[0-9a-f]{16}\.js$/;
const trusted = window.trustedTypes?.createPolicy("harness", {
  createScriptURL: (url) => {
    if (!CHUNK.test(url)) throw new TypeError(`no chunk of this page: ${url}`);
    return url;
  },
  createScript: (source) => source, // run only if the page's policy has its hash
});

window.harnessChunk = (name, packed) => arriving.get(name)?.(packed);

async function unpacked(packed) {
  const bytes = Uint8Array.fromBase64?.(packed) ?? Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"))).text();
}

async function packedBlock(name) {
  const stem = own(DATA.chunks, name);
  if (stem) return chunk(name, `samples/${stem}.js`);
  if (document.readyState === "loading") {
    await new Promise((done) => document.addEventListener("DOMContentLoaded", done, { once: true }));
  }
  return byId(`block-${name}`).textContent;
}

function chunk(name, url) {
  return new Promise((done, failed) => {
    const script = el("script");
    const settle = (act, value) => { arriving.delete(name); script.remove(); act(value); };
    arriving.set(name, (packed) => settle(done, packed));
    script.onload = () => arriving.has(name) && settle(failed, new Error(`${url} is of another page`));
    script.onerror = () => settle(failed, new Error(`${url} is not beside this page`));
    script.src = trusted ? trusted.createScriptURL(url) : url;
    document.head.append(script);
  });
}

/* The value of a block; the same promise for all who ask meanwhile. */
function block(name) {
  const known = kept.get(name) ?? packedBlock(name).then(unpacked).then(JSON.parse);
  kept.delete(name); // the last asked for is the last to go
  kept.set(name, known);
  known.catch(() => kept.delete(name));
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return known;
}

async function runPlotly() {
  if (window.Plotly) return;
  const source = await unpacked(await packedBlock("plotly"));
  const script = el("script");
  script.text = trusted ? trusted.createScript(source) : source;
  document.head.append(script);
}
