// Shows what the server sends, and tells it which knob was turned. The server draws the charts.
'use strict'

const $ = (id) => document.getElementById(id)
const form = $('knobs')
const notice = $('notice')
let knobs // as the server has them
let turning = null // the slider that is being moved

function say(text, bad = false) {
  if (notice.textContent !== text) notice.textContent = text
  notice.classList.toggle('bad', bad)
}

// That the machine is too busy is said while nothing else is.
let busy = ''
function sayBusy(text) {
  if (['', busy].includes(notice.textContent)) say(text, text !== '')
  busy = text
}

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
      say('The program has ended, or can not be reached.', true)
    }
  }
  sending = false
}

const withUnit = (input, value) => `${value} ${input.previousElementSibling.dataset.unit}`.trim()

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
  if (b.textContent !== text) b.textContent = text
}

function label(input) {
  const text = withUnit(input, Number(input.value))
  input.previousElementSibling.textContent = text
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

const number = (x) => x.toLocaleString('en', { maximumFractionDigits: x < 10 ? 1 : 0 })
const percent = (x) => `${(100 * x).toFixed(0)} %`

function show(lane) {
  const card = $(lane.id)
  const put = (name, text) => { card.querySelector(`[data-is=${name}]`).textContent = text }
  for (const [name, svg] of Object.entries(lane.charts)) if (svg) card.querySelector(`.chart.${name}`).innerHTML = svg
  card.querySelector('.chart.rates').setAttribute('aria-label', lane.summary)
  put('admitted', `${number(lane.admitted_per_second)}/s`)
  put('declined', `${number(lane.declined_per_second)}/s`)
  put('factor', percent(lane.suppression_factor))
  put('room', percent(lane.room_ratio))
  put('latency', `${lane.p50}, ${lane.p99}`)
  put('pause', lane.longest_pause)
  put('fullest', `${lane.largest_any_window} of ${lane.bound} ${lane.held ? '✓' : '✗'}`)
  card.querySelector('meter').value = lane.bound ? lane.largest_any_window / lane.bound : 0
  card.classList.toggle('broken', !lane.held)
  const trouble = card.querySelector('.trouble')
  trouble.hidden = lane.fallback + lane.failed + lane.skipped === 0
  put('trouble', `${lane.fallback}, ${lane.failed}, ${lane.skipped}`)
  trouble.title = lane.first_error
}

function rows(table, all) {
  const body = table.tBodies[0]
  while (body.rows.length > all.length) body.deleteRow(-1)
  all.forEach((cells, i) => {
    const row = body.rows[i] ?? body.insertRow()
    cells.forEach((text, j) => {
      const cell = row.cells[j] ?? row.insertCell()
      if (cell.textContent !== text) cell.textContent = text
    })
  })
}

const events = new EventSource('/events')
let lost = false
events.addEventListener('message', (event) => {
  const view = JSON.parse(event.data)
  if (lost) {
    lost = false
    say('')
  }
  if (!sending) set(view.knobs)
  sayBusy(view.busy)
  view.lanes.forEach(show)
  rows($('clients'), view.lanes[0].clients.map((c, i) => [c.client, ...view.lanes.map((l) => {
    const { asked, admitted } = l.clients[i]
    return asked ? `${number(admitted)} of ${number(asked)} (${percent(admitted / asked)})` : '–'
  })]))
  rows($('answers'), view.lanes.flatMap((l) => l.answers.map((a) => [l.id.replace('-', ' '), a.at, a.client, String(a.instance), a.status, a.headers])))
  document.documentElement.dataset.ticks = Number(document.documentElement.dataset.ticks ?? 0) + 1
})
events.addEventListener('error', () => {
  lost = true
  say('The program has ended, or can not be reached. This page goes on when it is back.', true)
})
