// Data arrive as scripts that call bsjaxReceive(name, payload, stamp, isDeflated): a page from disk may not fetch.
// The stamp is the report's: while a page is open, `bsjax report` may put the files of another in place.

const receivers = new Map();
const promises = new Map();
const ANEW = "write the report anew with `bsjax report`";
const FIRST = "site"; // loaded before all others: whose stamp it bears, that report is shown
let stampShown; // stamp of that report
let asked = null; // which report lies there now

window.bsjaxReceive = (name, payload, stamp, isDeflated = false) => {
  receivers.get(name)?.({ payload, stamp, isDeflated });
};

/** The payload of data/<name>.js; each file is loaded once. */
export function load(name) {
  if (!promises.has(name)) {
    promises.set(name, ofThisReport(name).catch((error) => {
      promises.delete(name); // asked for again, it may be there
      throw error;
    }));
  }
  return promises.get(name);
}

async function ofThisReport(name) {
  let found;
  try {
    found = await runScript(name);
  } catch (error) {
    // Another report may have fewer files, or others.
    if (name !== FIRST && await isAnother()) throw madeAnew();
    throw error;
  }
  if (name === FIRST) stampShown = found.stamp;
  else if (found.stamp !== stampShown) throw madeAnew();
  if (!found.isDeflated) return found.payload;
  return inflated(found.payload).json().catch((error) => { throw damaged(error); });
}

/** Stamp of the report that is shown. */
export const stampOf = () => stampShown;

/** Whether another report has taken the place of the one that is shown. */
function isAnother() {
  // Asked by several at once; one script of a name runs at a time.
  asked ??= runScript(FIRST).then((found) => found.stamp !== stampShown, () => false)
    .finally(() => { asked = null; });
  return asked;
}

function madeAnew() {
  const error = new Error(`the report was made anew: reload the page (if that does not help, ${ANEW})`);
  return Object.assign(error, { isNoFault: true });
}

/** What the script data/<name>.js hands over. */
function runScript(name) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    let isHere = false;
    const receive = (found) => { isHere = true; resolve(found); };
    receivers.set(name, receive);
    const kept = window.bsjaxKept?.[name]; // the page bears all its data itself
    if (kept) {
      kept();
      receivers.delete(name);
      return;
    }
    const end = (text) => {
      script.remove();
      if (receivers.get(name) === receive) receivers.delete(name);
      if (!isHere) reject(new Error(`data/${name}.js ${text}; ${ANEW}`));
    };
    script.src = `data/${name}.js`;
    script.onload = () => end("is damaged or cut short");
    script.onerror = () => end("is missing");
    document.head.append(script);
  });
}

const TYPES = {
  float32: Float32Array, int32: Int32Array, uint32: Uint32Array, uint16: Uint16Array, uint8: Uint8Array,
};

/** A packed array as a typed array. */
export function unpack(packed) {
  return typed(packed, bytesOf(packed.data).buffer);
}

/** The same of a deflated one. */
export async function inflate(packed) {
  const buffer = await inflated(packed.data).arrayBuffer().catch((error) => { throw damaged(error); });
  return typed(packed, buffer);
}

/** What base64 of deflated bytes holds, as a response to read. */
function inflated(data) {
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old: it has no DecompressionStream");
  return new Response(new Blob([bytesOf(data)]).stream().pipeThrough(new DecompressionStream("deflate")));
}

function typed(packed, buffer) {
  const size = packed.shape.reduce((a, b) => a * b, 1);
  const type = TYPES[packed.dtype];
  if (buffer.byteLength !== size * type.BYTES_PER_ELEMENT) throw damaged();
  return new type(buffer);
}

const damaged = (cause) => new Error(`an array of the report is damaged; ${ANEW}`, { cause });

function bytesOf(text) {
  let binary;
  try {
    binary = atob(text);
  } catch (error) {
    throw damaged(error);
  }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
