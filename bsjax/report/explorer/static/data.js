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
  return inflated(found.payload).arrayBuffer().then(taken).catch((error) => { throw damaged(error); });
}

/** A payload from its bytes: the length of its JSON, that JSON, and its arrays, which are read when asked for. */
function taken(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const payload = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  attach(payload, new Uint8Array(buffer, 4 + length));
  return payload;
}

function attach(value, body) {
  if (!value || typeof value !== "object" || Array.isArray(value)) return;
  if (value.dtype && Number.isInteger(value.at)) value.body = body;
  else for (const each of Object.values(value)) attach(each, body);
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

/** A packed array as a typed array; made once, and nobody changes it. */
export function unpack(packed) {
  packed.array ??= typed(packed);
  packed.body = null;
  return packed.array;
}

/** Row of a packed table of n columns of which what is not 0 alone is told. */
export function unpackRow(table, row, n) {
  if (!table.ends) {
    let end = 0;
    table.ends = Int32Array.from(unpack(table.counts), (count) => (end += count));
  }
  const [gaps, values] = [unpack(table.gaps), unpack(table.values)];
  const found = new Uint32Array(n);
  let column = -1;
  for (let at = row ? table.ends[row - 1] : 0; at < table.ends[row]; at += 1) {
    column += gaps[at] + 1;
    found[column] = values[at];
  }
  return found;
}

/** What base85 of deflated bytes holds, as a response to read. */
function inflated(data) {
  if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old: it has no DecompressionStream");
  return new Response(new Blob([bytesOf85(data)]).stream().pipeThrough(new DecompressionStream("deflate")));
}

function typed(packed) {
  const size = packed.shape.reduce((a, b) => a * b, 1);
  const type = TYPES[packed.dtype];
  const width = type.BYTES_PER_ELEMENT;
  const bytes = packed.body?.subarray(packed.at, packed.at + size * width) ?? bytesOf(packed.data);
  if (bytes.length !== size * width) throw damaged();
  const whole = new Uint8Array(size * width);
  if (!packed.split) whole.set(bytes);
  else for (let byte = 0; byte < width; byte += 1) for (let p = 0; p < size; p += 1) whole[p * width + byte] = bytes[byte * size + p];
  return new type(whole.buffer);
}

const damaged = (cause) => new Error(`an array of the report is damaged; ${ANEW}`, { cause });

function bytesOf(text) {
  let binary;
  try {
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
    binary = atob(text);
  } catch (error) {
    throw damaged(error);
  }
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
const DIGITS_85 = new Uint8Array(128).fill(255);
[...LETTERS].forEach((letter, digit) => { DIGITS_85[letter.charCodeAt(0)] = digit; });

/** Four bytes of every five letters; of fewer at the end one byte less than letters. */
function bytesOf85(text) {
  const n = text.length;
  const bytes = new Uint8Array(4 * Math.ceil(n / 5));
  const words = new DataView(bytes.buffer);
  for (let from = 0, at = 0; from < n; from += 5, at += 4) {
    let word = 0;
    for (let place = from; place < from + 5; place += 1) {
      const digit = place < n ? DIGITS_85[text.charCodeAt(place)] : 84;
      if (!(digit < 85)) throw damaged();
      word = word * 85 + digit;
    }
    words.setUint32(at, word);
  }
  return bytes.subarray(0, Math.floor(n / 5) * 4 + Math.max(0, n % 5 - 1));
}
