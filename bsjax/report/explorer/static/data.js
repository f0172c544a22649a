// Data arrive as scripts that call bsjaxReceive(name, payload): a page from disk may not fetch.

const receivers = new Map();
const promises = new Map();
const ANEW = "write the report anew with `bsjax report`";

window.bsjaxReceive = (name, payload) => {
  receivers.get(name)?.(payload);
};

/** The payload of data/<name>.js; each file is loaded once. */
export function load(name) {
  if (!promises.has(name)) {
    promises.set(name, new Promise((resolve, reject) => {
      const script = document.createElement("script");
      let isHere = false;
      receivers.set(name, (payload) => { isHere = true; resolve(payload); });
      const end = (text) => {
        script.remove();
        receivers.delete(name);
        if (isHere) return;
        promises.delete(name); // asked for again, it may be there
        reject(new Error(`data/${name}.js ${text}; ${ANEW}`));
      };
      script.src = `data/${name}.js`;
      script.onload = () => end("is damaged or cut short");
      script.onerror = () => end("is missing");
      document.head.append(script);
    }));
  }
  return promises.get(name);
}

const TYPES = {
  float32: Float32Array, int32: Int32Array, uint32: Uint32Array, uint8: Uint8Array,
};

/** A packed array as a typed array. */
export function unpack(packed) {
  return typed(packed, bytesOf(packed.data).buffer);
}

/** The same of a deflated one. */
export async function inflate(packed) {
  const stream = new Blob([bytesOf(packed.data)]).stream();
  try {
    const deflated = stream.pipeThrough(new DecompressionStream("deflate"));
    return typed(packed, await new Response(deflated).arrayBuffer());
  } catch (error) {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old: it has no DecompressionStream");
    throw damaged(error);
  }
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
