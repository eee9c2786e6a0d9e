// Shows what the server sends, and tells it which knob was turned and which scene was chosen.
'use strict'

const $ = (id) => document.getElementById(id)
const form = $('knobs')
const notice = $('notice')
const controls = $('controls')
let knobs // as the server has them
let turning = null // the slider that is being moved

// Controls are folded on a phone.
const wide = matchMedia('(min-width: 901px)')
controls.open = wide.matches
wide.addEventListener('change', () => { controls.open = wide.matches })

function put(node, text) {
  if (node.textContent !== text) node.textContent = text
}

function say(text, bad = false) {
  put(notice, text)
  notice.classList.toggle('bad', bad)
}

// That the machine is too busy is said while nothing else is.
let busy = ''
function sayBusy(text) {
  if (['', busy].includes(notice.textContent)) say(text, text !== '')
  busy = text
}

const gone = 'The program has ended, or cannot be reached.'

// What was turned last goes last, however long the server takes.
let pending = {}
let sending = false
async function turn(change) {
  Object.assign(pending, change)
  if (sending) return
  sending = true
  while (Object.keys(pending).length > 0) {
    const body = JSON.stringify(pending)
    pending = {}
    try {
      const answer = await fetch('/knobs', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body })
      const said = await answer.json()
      if (answer.ok) {
        say('')
        set(said)
      } else {
        say(said.error, true)
        if (knobs) set(knobs, true)
      }
    } catch {
      say(gone, true)
    }
  }
  sending = false
}

/** Shows the knobs as they are, but for the one under a finger. */
function set(k, all = false) {
  knobs = k
  for (const input of form.querySelectorAll('input[type=range]')) {
    if (input === turning && !all) continue
    input.value = k[input.name]
    label(input)
  }
  for (const input of form.querySelectorAll('input[name=shape]')) input.checked = input.value === k.shape
  button($('redis'), !k.redis, k.redis ? 'Kill Redis' : 'Restore Redis')
  button($('pause'), k.paused > 0, k.paused > 0 ? `Resume instance ${k.paused}` : 'Pause instance 1')
  $('pause').disabled = k.instances < 2
}

function button(b, pressed, text) {
  b.setAttribute('aria-pressed', pressed)
  put(b, text)
}

function label(input) {
  const text = `${Number(input.value)} ${input.previousElementSibling.dataset.unit}`.trim()
  put(input.previousElementSibling, text)
  input.setAttribute('aria-valuetext', text)
}

form.addEventListener('input', (event) => {
  const input = event.target
  if (input.type === 'range') {
    turning = input
    label(input)
    turn({ [input.name]: Number(input.value) })
  } else if (input.name === 'shape') {
    turn({ shape: input.value })
  }
})
form.addEventListener('change', () => { turning = null })
form.addEventListener('submit', (event) => event.preventDefault())
$('redis').addEventListener('click', () => turn({ redis: !knobs.redis }))
$('pause').addEventListener('click', () => turn({ paused: knobs.paused > 0 ? 0 : 1 }))

const choices = [...document.querySelectorAll('[data-scene]')]
for (const choice of choices) {
  choice.addEventListener('click', async () => {
    controls.open = choice.dataset.scene === '' && wide.matches // a scene needs no hands
    try {
      await fetch('/scene', { method: 'POST', body: new URLSearchParams({ id: choice.dataset.scene }) })
      say('')
    } catch {
      say(gone, true)
    }
  })
}

function setScene(scene) {
  for (const choice of choices) choice.setAttribute('aria-pressed', choice.dataset.scene === scene.id)
  put($('caption'), scene.says)
  $('part').hidden = scene.id === '' || scene.part === 1
  $('part').value = scene.part
  const shown = scene.lanes.length
  $('lanes').classList.toggle('few', shown <= 3)
  $('lanes').classList.toggle('four', shown === 4)
  for (const card of document.querySelectorAll('.lane')) {
    const at = scene.lanes.indexOf(card.id)
    card.hidden = at < 0
    $(`${card.id}-numbers`).hidden = at < 0
    if (at >= 0 && $('lanes').children[at] !== card) $('lanes').insertBefore(card, $('lanes').children[at])
  }
}

const number = (x) => x.toLocaleString('en', { maximumFractionDigits: x < 10 ? 1 : 0 })
const percent = (x) => `${(100 * x).toFixed(0)} %`

const samples = 120 // in a chart
const pad = { left: 34, right: 6, top: 8, bottom: 20 }

function element(name, parent, attributes = {}) {
  const node = document.createElementNS('http://www.w3.org/2000/svg', name)
  for (const a in attributes) node.setAttribute(a, attributes[a])
  return parent.appendChild(node)
}

/** A chart whose parts stay, and move. */
class Chart {
  constructor(host) {
    this.host = host
    this.svg = element('svg', host, { 'aria-hidden': 'true' })
    this.axes = element('g', this.svg)
    for (const name of ['band', 'total', 'in', 'offered', 'gone', 'limit']) this[name] = element('path', this.svg, { class: name })
    new ResizeObserver(() => {
      this.width = host.clientWidth
      this.height = host.clientHeight
    }).observe(host)
  }

  draw({ high, step }, points, limits, outage) {
    if (!this.width) return
    const bottom = this.height - pad.bottom
    const x = (i) => pad.left + ((this.width - pad.left - pad.right) * (samples - points.length + i)) / samples
    const y = (v) => bottom - ((bottom - pad.top) * Math.min(v, high)) / high
    this.ruled([this.width, this.height, high, step], y, bottom)
    // A value holds from its sample to the next. A run is without gaps; close gives the way back.
    const runs = (values, close) => {
      let path = ''
      let from = null
      values.forEach((v, i) => {
        if (v === null) {
          from = null
          return
        }
        const at = y(v).toFixed(1)
        path += from === null ? `M${x(i).toFixed(1)} ${close ? `${bottom}V${at}` : at}` : `V${at}`
        if (from === null) from = x(i)
        path += `H${x(i + 1).toFixed(1)}`
        if (close && (i + 1 === values.length || values[i + 1] === null)) path += `V${bottom}H${from.toFixed(1)}Z`
      })
      return path
    }
    const total = points.map(([a, d]) => (a < 0 ? null : a + d))
    this.total.setAttribute('d', runs(total, true))
    this.in.setAttribute('d', runs(points.map(([a]) => (a < 0 ? null : a)), true))
    this.offered.setAttribute('d', runs(total, false))
    this.limit.setAttribute('d', runs(limits, false))
    let band = ''
    let edge = ''
    outage.forEach((out, i) => {
      if (!out) return
      band += `M${x(i).toFixed(1)} ${pad.top}H${x(i + 1).toFixed(1)}V${bottom}H${x(i).toFixed(1)}Z`
      edge += `M${x(i).toFixed(1)} ${pad.top}H${x(i + 1).toFixed(1)}`
    })
    this.band.setAttribute('d', band)
    this.gone.setAttribute('d', edge)
  }

  /** Draws the axes, if they have changed. */
  ruled(key, y, bottom) {
    if (this.rule === String(key)) return
    this.rule = String(key)
    const [width, height, high, step] = key
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`)
    this.axes.replaceChildren()
    for (let v = 0; v <= high; v += step) {
      element('path', this.axes, { class: 'grid', d: `M${pad.left} ${y(v)}H${width - pad.right}` })
      element('text', this.axes, { x: pad.left - 5, y: y(v) + 4, 'text-anchor': 'end' }).textContent = v
    }
    element('text', this.axes, { x: pad.left, y: bottom + 16 }).textContent = '30 s ago'
    element('text', this.axes, { x: width - pad.right, y: bottom + 16, 'text-anchor': 'end' }).textContent = 'now'
  }
}

const charts = {}
for (const host of document.querySelectorAll('.chart')) charts[host.parentElement.id] = new Chart(host)

/** The scale of all charts: it grows at once, and shrinks when it is much too large. */
let scale = { high: 0, step: 1 }
function scaleFor(lanes, limits) {
  let high = Math.max(1, ...limits) * 1.2
  for (const lane of lanes) for (const [a, d] of lane.chart ?? []) high = Math.max(high, a + d)
  if (high > scale.high || high < 0.6 * scale.high) {
    const unit = 10 ** Math.floor(Math.log10(high / 3))
    const step = [1, 2, 5, 10].map((n) => n * unit).find((s) => s >= high / 4)
    scale = { high: Math.ceil(high / step) * step, step }
  }
  return scale
}

function show(lane, view, slow) {
  const row = $(`${lane.id}-numbers`)
  const cell = (name, text) => put(row.querySelector(`[data-is=${name}]`), text)
  cell('admitted', `${number(lane.admitted_per_second)}/s`)
  cell('declined', `${number(lane.declined_per_second)}/s`)
  cell('factor', percent(lane.suppression_factor))
  cell('room', percent(lane.room_ratio))
  cell('latency', `${lane.p50}, ${lane.p99}`)
  cell('pause', lane.longest_pause)
  cell('fullest', `${lane.largest_any_window} of ${lane.bound} ${lane.held ? '✓' : '✗'}`)
  cell('fallback', number(lane.fallback))
  cell('failed', number(lane.failed))
  cell('skipped', number(lane.skipped))
  row.title = lane.first_error
  const card = $(lane.id)
  charts[lane.id].draw(scale, lane.chart ?? [], view.limits ?? [], view.outage ?? [])
  const verdict = card.querySelector('.verdict')
  if (slow && verdict.classList.contains(lane.tone)) return
  verdict.className = `verdict ${lane.tone}`
  put(verdict, lane.verdict)
  card.querySelector('.chart').setAttribute('aria-label', lane.summary)
}

function rows(table, all) {
  const body = table.tBodies[0]
  while (body.rows.length > all.length) body.deleteRow(-1)
  all.forEach((cells, i) => {
    const row = body.rows[i] ?? body.insertRow()
    while (row.cells.length > cells.length) row.deleteCell(-1)
    cells.forEach((text, j) => put(row.cells[j] ?? row.insertCell(), text))
  })
}

function heads(table, names) {
  const row = table.tHead.rows[0]
  while (row.cells.length > names.length) row.deleteCell(-1)
  names.forEach((name, i) => {
    const cell = row.cells[i] ?? row.appendChild(Object.assign(document.createElement('th'), { scope: 'col' }))
    put(cell, name)
  })
}

const title = (lane) => $(`${lane.id}-title`).firstChild.textContent.trim()

const events = new EventSource('/events')
let lost = false
let ticks = 0
events.addEventListener('message', (event) => {
  const view = JSON.parse(event.data)
  if (lost) {
    lost = false
    say('')
  }
  if (!sending) set(view.knobs)
  setScene(view.scene)
  sayBusy(view.busy)
  const lanes = view.scene.lanes.map((id) => view.lanes.find((lane) => lane.id === id))
  scaleFor(lanes, view.limits ?? [])
  for (const lane of lanes) show(lane, view, ticks % 4 > 0) // words that change more often cannot be read
  heads($('clients'), ['client', ...lanes.map(title)])
  rows($('clients'), lanes[0].clients.map((c, i) => [c.client, ...lanes.map((l) => {
    const { asked, admitted } = l.clients[i]
    return asked ? `${number(admitted)} of ${number(asked)} (${percent(admitted / asked)})` : '–'
  })]))
  rows($('answers'), lanes.flatMap((l) => l.answers.map((a) => [title(l), a.at, a.client, String(a.instance), a.status, a.headers])))
  document.documentElement.dataset.ticks = ++ticks
})
events.addEventListener('error', () => {
  lost = true
  say(`${gone} This page continues when it is back.`, true)
})
