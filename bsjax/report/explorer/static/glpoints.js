// Points by WebGL: one call draws all; what moves and zooms them are a few numbers.

export const SYMBOLS = { disc: 0, up: 1, down: 2, "open up": 3, "open down": 4 };
/** Where points lie on one another: what lies below, what the filter fades, what lies on top and has an outline. */
export const LAYERS = { below: 0, faded: 1, above: 2 };
export const PER_LAYER = 8; // a point's kind: its symbol and this many times its layer
export const LARGER = 1.2; // a triangle's corner from the middle, in halves of its size
export const STROKE = 1.7; // pixels of an open symbol's line

const VERTEX = `#version 300 es
in vec2 place; in float size; in vec4 colour; in float kind;
uniform vec2 centre, scale; uniform vec3 shrink, fade; uniform float ratio;
out vec4 ink; flat out float symbol, radius, line;
void main() {
  int layer = int(kind) / ${PER_LAYER};
  symbol = float(int(kind) % ${PER_LAYER});
  line = layer == ${LAYERS.above} ? ratio : 0.0;
  radius = 0.5 * size * shrink[layer] * ratio * (symbol > 0.5 ? ${LARGER.toFixed(2)} : 1.0);
  ink = vec4(colour.rgb, colour.a * fade[layer]);
  gl_Position = vec4((place - centre) * scale, 0.0, 1.0);
  gl_PointSize = 2.0 * (radius + line + 0.5);
}`;
// Of those below, which are many: discs without an outline.
const DISC = `#version 300 es
precision highp float;
in vec4 ink; flat in float symbol, radius, line;
out vec4 seen;
void main() {
  float d = length(gl_PointCoord - 0.5) * (2.0 * radius + 1.0);
  seen = vec4(ink.rgb, 1.0) * (ink.a * clamp(0.5 + radius - d, 0.0, 1.0));
}`;
const ANY = `#version 300 es
precision highp float;
in vec4 ink; flat in float symbol, radius, line;
uniform vec3 paper; uniform float stroke;
out vec4 seen;
void main() {
  vec2 p = (2.0 * gl_PointCoord - 1.0) * (radius + line + 0.5);
  bool isOpen = symbol > 2.5;
  float way = isOpen ? symbol - 2.0 : symbol;
  if (way > 1.5) p.y = -p.y;
  float d = way < 0.5 ? length(p) - radius
    : max(p.y, 0.8660254 * abs(p.x) - 0.5 * p.y) - 0.5 * radius;
  float within = clamp(0.5 - d, 0.0, 1.0);
  float share = isOpen ? within * clamp(0.5 + d + stroke, 0.0, 1.0) : within;
  float whole = line > 0.0 ? clamp(0.5 - d + line, 0.0, 1.0) : within;
  float alpha = whole * ink.a;
  seen = vec4(mix(paper, ink.rgb, share / max(whole, 1e-6)) * alpha, alpha);
}`;

/**
 * What draws points on a canvas.
 *
 * @param onLost called when the graphics card is lost
 * @returns {setPoints, draw, dispose}; null where the browser has no WebGL 2
 */
export function glPainter(canvas, onLost) {
  try {
    return makeGlPainter(canvas, onLost);
  } catch {
    return null; // virtual machines and remote desktops often have none, half of one, or one drawn by software
  }
}

function makeGlPainter(canvas, onLost) {
  // Where WebGL is drawn by software, pixels by hand are faster.
  const gl = canvas.getContext("webgl2", { antialias: false, preserveDrawingBuffer: true, failIfMajorPerformanceCaveat: true });
  const attributes = [["place", 2, gl.FLOAT, false], ["size", 1, gl.FLOAT, false],
    ["colour", 4, gl.UNSIGNED_BYTE, true], ["kind", 1, gl.UNSIGNED_BYTE, false]];
  const [discs, any] = [DISC, ANY].map((fragment) => linkedProgram(gl, fragment, attributes.map(([name]) => name)));
  const buffers = Object.fromEntries(attributes.map(([name, n, type, isShare], location) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.enableVertexAttribArray(location);
    gl.vertexAttribPointer(location, n, type, isShare, 0, 0);
    return [name, buffer];
  }));
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  canvas.addEventListener("webglcontextlost", onLost);
  let [n, below] = [0, 0];
  return {
    setPoints(points) {
      n = points.ids.length;
      const above = points.kind.findIndex((kind) => kind >= PER_LAYER * LAYERS.above);
      below = above < 0 ? n : above;
      for (const name of Object.keys(buffers)) {
        gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
        gl.bufferData(gl.ARRAY_BUFFER, points[name], gl.DYNAMIC_DRAW);
      }
    },
    draw(view, { shrink, fade }, paper, ratio) {
      gl.viewport(0, 0, canvas.width, canvas.height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT);
      const values = {
        centre: [(view.left + view.right) / 2, (view.low + view.high) / 2], scale: [2 / (view.right - view.left), 2 / (view.high - view.low)],
        shrink, fade, paper: paper.map((part) => part / 255), ratio: [ratio], stroke: [STROKE * ratio],
      };
      for (const [{ program, uniforms }, first, count] of [[discs, 0, below], [any, below, n - below]]) {
        if (!count) continue;
        gl.useProgram(program);
        for (const [name, value] of Object.entries(values)) gl[`uniform${value.length}fv`](uniforms[name], value);
        gl.drawArrays(gl.POINTS, first, count);
      }
    },
    dispose() { // a browser has few of them
      canvas.removeEventListener("webglcontextlost", onLost);
      gl.getExtension("WEBGL_lose_context")?.loseContext();
    },
  };
}

function linkedProgram(gl, fragment, attributes) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  for (const [location, name] of attributes.entries()) gl.bindAttribLocation(program, location, name);
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  const names = ["centre", "scale", "shrink", "fade", "ratio", "paper", "stroke"];
  return { program, uniforms: Object.fromEntries(names.map((name) => [name, gl.getUniformLocation(program, name)])) };
}
