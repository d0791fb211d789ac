// three slices of a volume, left on the left
const HELP = 'Click on a slice, or move a slider, to go elsewhere. Point at a voxel to read its values.'
const AXES = ['x', 'y', 'z']
// of each slice: the axis across it, and those to its right and up
const SLICES = [[0, 1, 2], [1, 0, 2], [2, 0, 1]]
const size = brain.shape
const stride = [1, size[0], size[0] * size[1]]
const anatomy = numbers(brain.anatomy, Uint8Array)
const voxels = numbers(brain.voxels, Int32Array)
const at = new Int32Array(anatomy.length).fill(-1)
voxels.forEach((place, i) => { at[place] = i })
// where the first map is strongest
let strongest = 0
brain.maps[0].values.forEach((value, i) => {
  if (Math.abs(value) > (Math.abs(brain.maps[0].values[strongest]) || 0)) strongest = i
})
const cursor = size.map((n, axis) => Math.floor(voxels[strongest] / stride[axis]) % n)
const mm = voxel => brain.affine.map(row => voxel.reduce((sum, v, axis) => sum + row[axis] * v, row[3]))
let shown

get('place').innerHTML = AXES.map((name, axis) => `<label>${name} <input id="${name}" type="range" min="0" max="${size[axis] - 1}"> <span></span></label>`).join(' ')
AXES.forEach((name, axis) => get(name).addEventListener('input', () => move(axis, +get(name).value)))

const canvases = SLICES.map(([, right, up]) => {
  const canvas = get('stage').appendChild(document.createElement('canvas'))
  const voxelAt = event => {
    const voxel = [...cursor]
    voxel[right] = Math.floor(event.offsetX / canvas.clientWidth * size[right])
    voxel[up] = size[up] - 1 - Math.floor(event.offsetY / canvas.clientHeight * size[up])
    return voxel.map((v, axis) => Math.max(0, Math.min(size[axis] - 1, v)))
  }
  const go = event => {
    const voxel = voxelAt(event)
    ;[right, up].forEach(axis => { cursor[axis] = voxel[axis] })
    paint()
  }
  canvas.addEventListener('pointerdown', event => {
    canvas.setPointerCapture(event.pointerId)
    go(event)
  })
  canvas.addEventListener('pointermove', event => {
    if (event.buttons) go(event)
    tell(voxelAt(event))
  })
  return canvas
})

function move (axis, to) {
  cursor[axis] = to
  paint()
  tell(cursor)
}

function tell (voxel) {
  const place = voxel.reduce((sum, v, axis) => sum + stride[axis] * v, 0)
  describe(mm(voxel).map((value, axis) => `${AXES[axis]} = ${value.toFixed(1)}`).join(', ') + ' mm', at[place])
}

function paintSlice (canvas, [across, right, up], pixelsPerMm) {
  const image = new ImageData(size[right], size[up])
  const {colors: palette} = chosen()
  for (let v = 0; v < size[up]; v++) {
    for (let u = 0; u < size[right]; u++) {
      const place = cursor[across] * stride[across] + u * stride[right] + v * stride[up]
      const pixel = 4 * ((size[up] - 1 - v) * size[right] + u)
      const from = at[place] < 0 ? -1 : shown[at[place]]
      for (let x = 0; x < 3; x++) image.data[pixel + x] = from < 0 ? anatomy[place] : palette[from + x]
      image.data[pixel + 3] = 255
    }
  }
  const small = new OffscreenCanvas(size[right], size[up])
  small.getContext('2d').putImageData(image, 0, 0)
  const [width, height] = [right, up].map(axis => size[axis] * brain.spacing[axis] * pixelsPerMm)
  canvas.style.width = `${width}px`
  canvas.style.height = `${height}px`
  ;[canvas.width, canvas.height] = [width, height].map(length => Math.max(1, Math.round(length * devicePixelRatio)))
  const context = canvas.getContext('2d')
  context.imageSmoothingEnabled = false
  context.drawImage(small, 0, 0, canvas.width, canvas.height)
  context.fillStyle = 'rgba(80, 160, 255, .7)'
  context.fillRect((cursor[right] + 0.5) / size[right] * canvas.width, 0, 1, canvas.height)
  context.fillRect(0, (size[up] - cursor[up] - 0.5) / size[up] * canvas.height, canvas.width, 1)
  if (right === 0) {
    context.fillStyle = '#fff'
    context.font = `${12 * devicePixelRatio}px sans-serif`
    context.fillText('L', 4, 14 * devicePixelRatio)
    context.fillText('R', canvas.width - 14 * devicePixelRatio, 14 * devicePixelRatio)
  }
}

function paint () {
  const lengths = size.map((n, axis) => n * brain.spacing[axis])
  const {clientWidth, clientHeight} = get('stage')
  const pixelsPerMm = 0.94 * Math.min(clientWidth / (lengths[1] + 2 * lengths[0]), clientHeight / Math.max(lengths[1], lengths[2]))
  SLICES.forEach((slice, i) => paintSlice(canvases[i], slice, pixelsPerMm))
  const place = mm(cursor)
  AXES.forEach((name, axis) => {
    get(name).value = cursor[axis]
    get(name).nextElementSibling.textContent = `${place[axis].toFixed(0)} mm`
  })
}

function recolor (colors) {
  shown = colors
  paint()
}
