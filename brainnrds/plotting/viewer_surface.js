// the cortex, which can be turned: orthographic, drawn by WebGL 2
const HELP = 'Drag to turn, scroll to zoom. Point at the cortex to read its values.'
// azimuth and elevation of the eye, in degrees
const VIEWS = {left: [180, 0], right: [0, 0], 'left medial': [0, 0], 'right medial': [180, 0], top: [-90, 90], bottom: [90, -90], front: [90, 0], back: [-90, 0]}
const xyz = Float32Array.from(numbers(brain.xyz, Int16Array), steps => steps * brain.step)
const bytes = numbers(brain.faces, Uint8Array)
const faces = new Int32Array(3 * brain.nFaces)
for (let i = 0, at = 0, first = 0; i < faces.length; i++) {
  let step = bytes[at] & 127
  for (let bits = 7; bytes[at++] > 127; bits += 7) step |= (bytes[at] & 127) << bits
  if (i % 3 === 0) first += step
  faces[i] = i % 3 ? first + step : first
}
const gyri = numbers(brain.gyri, Uint8Array)
const low = [Infinity, Infinity, Infinity]
const high = [-Infinity, -Infinity, -Infinity]
for (let i = 0; i < xyz.length; i++) {
  low[i % 3] = Math.min(low[i % 3], xyz[i])
  high[i % 3] = Math.max(high[i % 3], xyz[i])
}
const center = low.map((least, axis) => (least + high[axis]) / 2)
const radius = Math.hypot(...low.map((least, axis) => (high[axis] - least) / 2))

get('place').innerHTML = '<label>View <select id="view"></select></label>'
for (const name in VIEWS) get('view').add(new Option(name))
const canvas = get('stage').appendChild(document.createElement('canvas'))
canvas.style.cssText = 'width: 100%; height: 100%'
const gl = canvas.getContext('webgl2')
if (!gl) {
  get('hover').textContent = 'This browser draws no WebGL 2, which the cortex needs.'
  throw new Error('no WebGL 2')
}
const eye = {}

const program = gl.createProgram()
for (const [kind, source] of [[gl.VERTEX_SHADER, `#version 300 es
in vec3 place, normal, color;
uniform mat3 turn;
uniform vec3 center;
uniform vec2 zoom, shift;
uniform float radius;
out vec3 shade;
void main () {
  vec3 seen = turn * (place - center);
  gl_Position = vec4(seen.xy * zoom + shift, -seen.z / (2.0 * radius), 1.0);
  shade = color * (0.55 + 0.5 * abs((turn * normal).z));
}`], [gl.FRAGMENT_SHADER, `#version 300 es
precision mediump float;
in vec3 shade;
out vec4 pixel;
void main () { pixel = vec4(shade, 1.0); }`]]) {
  const shader = gl.createShader(kind)
  gl.shaderSource(shader, source)
  gl.compileShader(shader)
  gl.attachShader(program, shader)
}
gl.linkProgram(program)
gl.useProgram(program)
gl.enable(gl.DEPTH_TEST)

function attribute (name, kind, normalized) {
  const buffer = gl.createBuffer()
  const at = gl.getAttribLocation(program, name)
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer)
  gl.vertexAttribPointer(at, 3, kind, normalized, 0, 0)
  gl.enableVertexAttribArray(at)
  return values => {
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer)
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW)
  }
}

function normals () {
  const sums = new Float32Array(xyz.length)
  for (let f = 0; f < faces.length; f += 3) {
    const a = 3 * faces[f]
    const b = 3 * faces[f + 1]
    const c = 3 * faces[f + 2]
    for (let x = 0; x < 3; x++) {
      const y = (x + 1) % 3
      const z = (x + 2) % 3
      const area = (xyz[b + y] - xyz[a + y]) * (xyz[c + z] - xyz[a + z]) - (xyz[b + z] - xyz[a + z]) * (xyz[c + y] - xyz[a + y])
      sums[a + x] += area
      sums[b + x] += area
      sums[c + x] += area
    }
  }
  for (let i = 0; i < sums.length; i += 3) {
    const length = Math.sqrt(sums[i] ** 2 + sums[i + 1] ** 2 + sums[i + 2] ** 2) || 1
    for (let x = 0; x < 3; x++) sums[i + x] /= length
  }
  return sums
}

const setColors = attribute('color', gl.UNSIGNED_BYTE, true)
attribute('place', gl.FLOAT, false)(xyz)
attribute('normal', gl.FLOAT, false)(normals())
gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer())
gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, faces, gl.STATIC_DRAW)

// to the right, upwards and towards the eye
function axes () {
  const [azimuth, elevation] = [eye.azimuth, eye.elevation].map(degrees => degrees * Math.PI / 180)
  const right = [-Math.sin(azimuth), Math.cos(azimuth), 0]
  const near = [Math.cos(elevation) * Math.cos(azimuth), Math.cos(elevation) * Math.sin(azimuth), Math.sin(elevation)]
  const up = [0, 1, 2].map(x => near[(x + 1) % 3] * right[(x + 2) % 3] - near[(x + 2) % 3] * right[(x + 1) % 3])
  return [right, up, near]
}

// from mm to the canvas, whose sides are from -1 to 1
function zoom () {
  const {clientWidth: width, clientHeight: height} = canvas
  const scale = 1.25 * eye.zoom * Math.min(width, height) / radius
  return [scale / width, scale / height]
}

// the first of the faces that are seen, and the one after the last: a medial view shows one hemisphere
function seen () {
  const view = get('view').value
  if (!view.endsWith('medial')) return [0, faces.length]
  return view.startsWith('left') ? [0, 3 * brain.nLeftFaces] : [3 * brain.nLeftFaces, faces.length]
}

function paint () {
  canvas.width = canvas.clientWidth * devicePixelRatio
  canvas.height = canvas.clientHeight * devicePixelRatio
  gl.viewport(0, 0, canvas.width, canvas.height)
  gl.clearColor(1, 1, 1, 1)
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT)
  const uniform = name => gl.getUniformLocation(program, name)
  const [right, up, near] = axes()
  gl.uniformMatrix3fv(uniform('turn'), false, [0, 1, 2].flatMap(x => [right[x], up[x], near[x]]))
  gl.uniform3fv(uniform('center'), center)
  gl.uniform2fv(uniform('zoom'), zoom())
  gl.uniform2fv(uniform('shift'), eye.shift)
  gl.uniform1f(uniform('radius'), radius)
  const [start, stop] = seen()
  gl.drawElements(gl.TRIANGLES, stop - start, gl.UNSIGNED_INT, 4 * start)
}

function recolor (colors) {
  const {colors: palette} = chosen()
  const rgb = new Uint8Array(xyz.length)
  for (let i = 0; i < rgb.length; i++) {
    const v = Math.floor(i / 3)
    rgb[i] = colors[v] >= 0 ? palette[colors[v] + i % 3] : gyri[v >> 3] >> 7 - v % 8 & 1 ? brain.gyrus : brain.sulcus
  }
  setColors(rgb)
  paint()
}

function look () {
  const [azimuth, elevation] = VIEWS[get('view').value]
  Object.assign(eye, {azimuth, elevation, zoom: 1, shift: [0, 0]})
}

const onCanvas = event => [2 * event.offsetX / canvas.clientWidth - 1, 1 - 2 * event.offsetY / canvas.clientHeight]

// the vertex under the pointer, or -1: the nearest corner of the nearest face
function vertexAt (pointer) {
  const [right, up, near] = axes()
  const [x, y] = zoom().map((scale, axis) => (pointer[axis] - eye.shift[axis]) / scale)
  const along = (axis, v) => axis[0] * (xyz[v] - center[0]) + axis[1] * (xyz[v + 1] - center[1]) + axis[2] * (xyz[v + 2] - center[2])
  const flat = new Float32Array(xyz.length)
  for (let v = 0; v < xyz.length; v += 3) {
    flat[v] = along(right, v) - x
    flat[v + 1] = along(up, v) - y
    flat[v + 2] = along(near, v)
  }
  const [start, stop] = seen()
  let found = -1
  let depth = -Infinity
  for (let f = start; f < stop; f += 3) {
    const a = 3 * faces[f]
    const b = 3 * faces[f + 1]
    const c = 3 * faces[f + 2]
    const ab = flat[a] * flat[b + 1] - flat[b] * flat[a + 1]
    const bc = flat[b] * flat[c + 1] - flat[c] * flat[b + 1]
    const ca = flat[c] * flat[a + 1] - flat[a] * flat[c + 1]
    if (Math.min(ab, bc, ca) < 0 && Math.max(ab, bc, ca) > 0) continue
    const z = (bc * flat[a + 2] + ca * flat[b + 2] + ab * flat[c + 2]) / (ab + bc + ca)
    if (z > depth) {
      depth = z
      const away = v => Math.hypot(flat[v], flat[v + 1])
      found = [a, b, c].reduce((best, v) => away(v) < away(best) ? v : best) / 3
    }
  }
  return found
}

canvas.addEventListener('pointerdown', event => canvas.setPointerCapture(event.pointerId))
canvas.addEventListener('pointermove', event => {
  if (event.buttons) {
    eye.azimuth -= event.movementX / 2
    eye.elevation = Math.max(-90, Math.min(90, eye.elevation + event.movementY / 2))
    paint()
    return
  }
  const vertex = vertexAt(onCanvas(event))
  if (vertex < 0) return
  const isLeft = vertex < brain.nLeft
  describe(`${isLeft ? 'left' : 'right'} hemisphere, vertex ${isLeft ? vertex : vertex - brain.nLeft}`, vertex)
})
canvas.addEventListener('wheel', event => {
  event.preventDefault()
  const by = Math.exp(-event.deltaY / 500)
  // what is under the pointer stays there
  onCanvas(event).forEach((at, axis) => { eye.shift[axis] = at + by * (eye.shift[axis] - at) })
  eye.zoom *= by
  paint()
}, {passive: false})
get('view').addEventListener('change', () => {
  look()
  paint()
})
look()
