// Data arrive as scripts that call bsjaxReceive(name, payload): a page from disk may not fetch.

const receivers = new Map();
const promises = new Map();

window.bsjaxReceive = (name, payload) => {
  receivers.get(name)?.(payload);
  receivers.delete(name);
};

/** The payload of data/<name>.js; each file is loaded once. */
export function load(name) {
  if (!promises.has(name)) {
    promises.set(name, new Promise((resolve, reject) => {
      receivers.set(name, resolve);
      const script = document.createElement("script");
      script.src = `data/${name}.js`;
      script.onload = () => script.remove();
      script.onerror = () => reject(new Error(`data/${name}.js is missing; write the report anew`));
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
  return new TYPES[packed.dtype](bytesOf(packed.data).buffer);
}

/** The same of a deflated one. */
export async function inflate(packed) {
  const stream = new Blob([bytesOf(packed.data)]).stream();
  const bytes = await new Response(stream.pipeThrough(new DecompressionStream("deflate")))
    .arrayBuffer();
  return new TYPES[packed.dtype](bytes);
}

function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
