// The page of trypema demo: every knob does what it says, in every look, and no guarantee breaks meanwhile.
// Nothing is said of how soon: what is to happen is waited for.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, before } from 'node:test'
import { complaints, launch, long, longTest, looks, open, overflow, patience, program, screenshot, smallTexts, test } from './browser.js'

const lanes = ['local', 'redis', 'hybrid'].flatMap((p) => [`${p}-absolute`, `${p}-suppressed`])

const limit = long ? '5' : '2' // which a slow machine can make the calls for; fewer take less of its time

const denial = new RegExp(`429 Too Many Requests.*RateLimit-Policy: "default";q=${2 * limit};w=2 {2}RateLimit: "default";r=\\d+;t=\\d+ {2}Retry-After`, 's')

let browser, demo

before(async () => {
  browser = await launch()
  demo = await start('--rate', limit)
})

after(async () => {
  await browser?.close()
  demo?.process.kill()
})

/** A demo on a free port: its process, its address, what it has said, and its end. */
async function start(...flags) {
  const process = spawn(program, ['demo', '--no-open', '--addr', '127.0.0.1:0', ...flags])
  const it = { process, said: '', out: '' }
  process.stdout.on('data', (data) => { it.out += data })
  it.ended = new Promise((resolve) => process.on('close', resolve))
  await new Promise((resolve) => process.stderr.on('data', (data) => {
    it.said += data
    it.url = it.said.match(/http:\S+/)?.[0]
    if (it.url) resolve()
  }))
  return it
}

/** A page of the demo that is seen to move. */
async function visit(look = looks[0], url = demo.url) {
  const visited = await open(browser, url, look)
  await ticks(visited.page, 2)
  return visited
}

/** Waits until the server has said so many times more what there is to see. */
async function ticks(page, n) {
  const now = () => page.evaluate(() => Number(document.documentElement.dataset.ticks ?? 0))
  const from = await now()
  await page.waitForFunction((until) => Number(document.documentElement.dataset.ticks ?? 0) >= until, from + n)
}

const chart = (page, lane) => page.locator(`#${lane} .chart`)
const curve = (page, lane, name) => page.locator(`#${lane} .chart path.${name}`).getAttribute('d')
const read = (page, lane, what) => page.locator(`#${lane}-numbers [data-is=${what}]`).textContent()
const withoutRedis = async (page, lane) => Number((await read(page, lane, 'fallback')).replaceAll(',', ''))
const verdict = (page, lane) => page.locator(`#${lane} .verdict`).textContent()
const unfold = (page) => page.evaluate(() => { for (const fold of document.querySelectorAll('details')) fold.open = true })

/** No guarantee is broken, and nothing was complained of. */
async function well({ page, errors }) {
  const shown = await page.evaluate((all) => all.map((lane) => { // at one go: each question takes the browser's time
    const find = (what) => document.querySelector(what)
    return { lane, fullest: find(`#${lane}-numbers [data-is=fullest]`).textContent, tone: find(`#${lane} .verdict`).className }
  }), lanes)
  for (const { lane, fullest, tone } of shown) {
    assert.match(fullest, /^\d+ of \d+ ✓$/, lane)
    assert.ok(!tone.includes('over'), lane)
  }
  assert.deepEqual(errors, [])
}

async function until(what, holds) {
  for (const end = Date.now() + patience; ; await new Promise((resolve) => setTimeout(resolve, 100))) {
    if (await holds()) return
    assert.ok(Date.now() < end, `not within ${patience} ms: ${what}`)
  }
}

for (const look of looks) {
  look.test(`demo, ${look.name}`, async () => {
    const visited = await visit(look)
    const { page } = visited
    assert.ok(await chart(page, lanes[0]).evaluate((node) => node.getBoundingClientRect().bottom <= innerHeight), 'the first chart is not on the first screen')
    assert.equal(await page.locator('#controls').evaluate((node) => node.open), look.viewport.width > 900, 'controls are folded on a phone alone')
    for (const lane of lanes) {
      for (const name of ['total', 'in', 'offered', 'limit']) {
        await until(`${lane} has a curve ${name}`, async () => /^M[^LCQ]*$/.test(await curve(page, lane, name))) // steps alone, nothing at an angle
      }
      const box = await chart(page, lane).boundingBox()
      assert.ok(box.width > 250 && box.height > 100, `the chart of ${lane} is ${box.width} by ${box.height}`)
      assert.match(await verdict(page, lane), /\w/)
    }
    const axes = await page.locator('.lane:visible .chart svg g').evaluateAll((all) => all.map((g) => g.textContent))
    assert.equal(new Set(axes).size, 1, 'the charts have one scale')
    assert.equal(await overflow(page), 0, 'the page is wider than the window')
    await screenshot(page, `demo-${look.name}`)
    await unfold(page)
    await until('the table has five clients', async () => (await page.locator('#clients tbody tr').count()) === 5)
    await until('two answers of each', async () => (await page.locator('#answers tbody tr').count()) === 12)
    await until('one is a denial', async () =>
      denial.test(await page.locator('#answers tbody').textContent()))
    assert.equal(await overflow(page), 0, 'the page is wider than the window with all unfolded')
    assert.deepEqual(await smallTexts(page, 12), [])
    assert.deepEqual(await complaints(page), [])
    await well(visited)
    if (look === looks[1]) await plays(visited)
    await page.context().close()
  })
}

/** A scene plays on a click, and the knobs are as before when it is left. */
async function plays(visited) {
  const { page } = visited
  assert.equal(await page.getByRole('button', { name: /^▶/ }).count(), 3)
  await page.getByRole('button', { name: 'A burst at a window’s edge' }).press('Enter')
  await until('three limiters are shown', async () => (await page.locator('.lane:visible').count()) === 3)
  await captioned(page, /^(All three have a limit of 60 calls in 2 s|In its fullest 2 s the fixed window admitted)/) // a slow machine sees the end only
  await until('how far the scene is', () => page.locator('#part').isVisible())
  await until('its knobs are shown', async () => (await page.locator('#limit').inputValue()) === '30')
  await page.getByRole('button', { name: 'All six limiters' }).click()
  await until('all six are shown', async () => (await page.locator('.lane:visible').count()) === 6)
  await until('the limit is as before', async () => (await page.locator('#limit').inputValue()) === limit)
  await captioned(page, /^$/)
  await well(visited)
}

async function captioned(page, text) {
  await until(`the caption is ${text}`, async () => text.test(await page.locator('#caption').textContent()))
}

test('a slider moves by keyboard, and the charts with it', () => move(['limit']))

longTest('each slider does', () => move())

/** Moves the sliders with these names, or all of them, forth and back. */
async function move(some) {
  const visited = await visit()
  const { page } = visited
  const all = await page.getByRole('slider').all()
  assert.equal(all.length, 7)
  const sliders = some?.map((id) => page.locator(`#${id}`)) ?? all
  const moved = {}
  for (const slider of sliders) {
    const id = await slider.getAttribute('id')
    assert.ok(await page.locator(`label[for=${id}]`).isVisible(), `${id} has no label`)
    const before = await slider.inputValue()
    const picture = await chart(page, 'redis-suppressed').innerHTML()
    await slider.focus()
    let value
    await until(`${id} moves`, async () => { // what the server said before the key was pressed may still set it back
      await page.keyboard.press('ArrowLeft')
      value = await slider.inputValue()
      if (value === before) { // it stood at the end
        await page.keyboard.press('ArrowRight')
        value = await slider.inputValue()
      }
      return value !== before
    })
    moved[id] = { before, value }
    await until(`${id}: the chart moves`, async () => (await chart(page, 'redis-suppressed').innerHTML()) !== picture)
    await well(visited)
  }
  const other = await visit() // which shows what the server has
  const shows = (id, value) => until(`the server has ${id}`, async () => (await other.page.locator(`#${id}`).inputValue()) === value)
  for (const id in moved) await shows(id, moved[id].value)
  for (const id in moved) await page.locator(`#${id}`).fill(moved[id].before)
  for (const id in moved) await shows(id, moved[id].before)
  await other.page.context().close()
  await page.context().close()
}

longTest('a lower limit acts at once', async () => {
  const visited = await visit()
  const { page } = visited
  await page.locator('#limit').fill('2')
  const admitted = async (lane) => Number((await read(page, lane, 'admitted')).replace('/s', ''))
  await until('all Suppressed limiters admit about 2/s', async () => {
    for (const lane of lanes.filter((l) => l.endsWith('suppressed'))) {
      const n = await admitted(lane)
      if (n < 0.5 || n > 3.5) return false
    }
    return true
  })
  await well(visited)
  await page.locator('#limit').fill(limit)
  await page.context().close()
})

longTest('each shape can be chosen', async () => {
  const visited = await visit()
  const { page } = visited
  for (const shape of ['step', 'spike', 'sine', 'on-off', 'greedy', 'edge', 'steady']) {
    await page.locator(`.shapes label:has(input[value="${shape}"])`).click()
    await until(`the server has ${shape}`, async () => (await page.locator(`input[value="${shape}"]`).isChecked()))
    await ticks(page, 3)
    assert.ok(await page.locator(`input[value="${shape}"]`).isChecked(), shape)
    if (shape === 'greedy') {
      const asked = async (row) => Number((await page.locator(`#clients tbody tr:nth-child(${row}) td:nth-child(2)`).textContent()).match(/of ([\d,]+)/)[1].replace(',', ''))
      await until('one asks for more than all others', async () => {
        let others = 0
        for (let row = 1; row <= 4; row++) others += await asked(row)
        return (await asked(5)) > others
      })
    }
    await well(visited)
  }
  await page.context().close()
})

test('Redis is killed, and comes back', async () => {
  const visited = await visit()
  const { page } = visited
  await page.getByRole('button', { name: 'Kill Redis' }).click()
  const remote = ['redis-absolute', 'redis-suppressed', 'hybrid-absolute', 'hybrid-suppressed']
  await until('decisions without Redis', async () => {
    for (const lane of remote) if ((await withoutRedis(page, lane)) === 0) return false
    return true
  })
  for (const lane of remote) {
    await until(`${lane} says so`, async () => (await verdict(page, lane)) === 'Redis is unavailable: each instance holds its share')
    await until(`the outage is in the chart of ${lane}`, async () => /^M/.test(await curve(page, lane, 'band')))
  }
  assert.equal(await withoutRedis(page, 'local-absolute'), 0, 'Local wants Redis')
  await well(visited)
  await screenshot(page, 'demo-without-redis')
  await page.getByRole('button', { name: 'Restore Redis' }).click()
  let last = -1
  await until('no more decisions without Redis', async () => {
    const was = last
    last = await withoutRedis(page, 'redis-absolute')
    await ticks(page, 2)
    return last === was || /too busy/.test(await page.locator('#notice').textContent()) // then calls find Redis too slow
  })
  await well(visited)
  await page.context().close()
})

test('an instance is paused, and goes on', async () => {
  const visited = await visit()
  const { page } = visited
  const instances = () => page.locator('#answers tbody tr:nth-child(n+3):nth-child(-n+6) td:nth-child(4)').allTextContents()
  await page.getByRole('button', { name: 'Pause instance 1' }).click()
  await until('only instance 2 answers for Redis and Hybrid', async () => (await instances()).every((i) => i === '2'))
  await well(visited)
  await page.getByRole('button', { name: 'Resume instance 1' }).click()
  await until('both answer', async () => (await instances()).includes('1'))
  await well(visited)
  await page.context().close()
})

test('what is out of range is said, and changes nothing; other tabs see what changes', async () => {
  const one = await visit()
  const two = await visit(looks[1])
  await one.page.locator('#load').fill('0.1') // for a while, so that there is not too much to do
  await until('the other tab has the load', async () => (await two.page.locator('#load').inputValue()) === '0.1')
  await one.page.locator('#limit').fill('200')
  await until('the other tab has the limit', async () => (await two.page.locator('#limit').inputValue()) === '200')
  await one.page.locator('#load').fill('10')
  await until('it is said', async () => (await one.page.locator('#notice').textContent()).startsWith('load is 10; it must be at most 4 with a limit of 200'))
  await until('the slider is back', async () => (await one.page.locator('#load').inputValue()) !== '10')
  one.errors.splice(0, one.errors.length, ...one.errors.filter((e) => !e.includes('400'))) // Chromium logs the status
  await one.page.locator('#limit').fill(limit)
  await until('the other tab has the limit again', async () => (await two.page.locator('#limit').inputValue()) === limit)
  await one.page.locator('#load').fill('3')
  await well(two)
  await one.page.context().close()
  await two.page.context().close()
})

for (const [name, end] of [
  ['A burst at a window’s edge', /^In its fullest 2 s the fixed window admitted \d+ calls, the token bucket \d+, Trypema 60\. The limit is 60\.$/],
  ['Overload', /^Local Absolute admitted [\d.]+ × the limit with pauses of up to [\d.]+\u00a0s, Local Suppressed/],
  ['Redis dies', /^While Redis was unavailable, the instances decided \d+ calls by themselves\. 0 calls failed\.$/],
]) {
  longTest(`the scene ${name} plays`, async () => {
    const visited = await visit()
    const { page } = visited
    await page.getByRole('button', { name }).click()
    await until('the scene comes to its end', async () => end.test(await page.locator('#caption').textContent()))
    await screenshot(page, `demo-scene-${name.replaceAll(/\W+/g, '-').toLowerCase()}`, false)
    await well(visited)
    await page.context().close()
  })
}

test('the end of the program is said, and it ends well', async () => {
  const short = await start('--instances', '3', '--rate', '10')
  const { page } = await visit(looks[0], short.url)
  assert.equal(await page.locator('#instances').inputValue(), '3')
  short.process.kill('SIGINT')
  const status = await short.ended
  assert.ok(status === 0 || short.said.includes('not all could be settled'), short.said) // on a machine that is too busy
  assert.match(short.out, /hybrid suppressed .* of 30 /)
  await until('the page says so', async () => (await page.locator('#notice').textContent()).startsWith('The program has ended'))
  await page.context().close()
})
