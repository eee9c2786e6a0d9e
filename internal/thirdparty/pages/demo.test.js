// The page of trypema demo: every knob does what it says, in every look, and no guarantee breaks meanwhile.
// Nothing is said of how soon: what is to happen is waited for.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, before } from 'node:test'
import { launch, longTest, looks, open, overflow, patience, program, screenshot, test } from './browser.js'

const lanes = ['local', 'redis', 'hybrid'].flatMap((p) => [`${p}-absolute`, `${p}-suppressed`])

const limit = '5' // which a slow machine can make the calls for

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

const chart = (page, lane, kind) => page.locator(`#${lane} .chart.${kind}`) // in which each picture is replaced by the next
const read = (page, lane, what) => page.locator(`#${lane} [data-is=${what}]`).textContent()
const troubled = (page, lane) => page.locator(`#${lane} .trouble`).isVisible()
const withoutRedis = async (page, lane) => Number((await read(page, lane, 'trouble')).split(',')[0])

/** No guarantee is broken, and nothing was complained of. */
async function well({ page, errors }) {
  for (const lane of lanes) assert.match(await read(page, lane, 'fullest'), /^\d+ of \d+ ✓$/, lane)
  assert.equal(await page.locator('.lane.broken').count(), 0)
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
    for (const lane of lanes) {
      for (const kind of ['rates', 'state', 'latency']) {
        await until(`${lane} ${kind} has a curve`, async () => /^<svg.*<polyline style="[^"]*var\(--(admitted|room)\)/s.test(await chart(page, lane, kind).innerHTML()))
        const box = await chart(page, lane, kind).boundingBox()
        assert.ok(box.width > 80 && box.height > 30, `${lane} ${kind} is ${box.width} by ${box.height}`)
      }
    }
    assert.equal(await page.locator('#clients tbody tr').count(), 5)
    await until('two answers of each', async () => (await page.locator('#answers tbody tr').count()) === 12)
    await until('one is a denial', async () => /429 Too Many Requests.*Retry-After/s.test(await page.locator('#answers tbody').textContent()))
    assert.equal(await overflow(page), 0, 'the page is wider than the window')
    await well(visited)
    await screenshot(page, `demo-${look.name}`)
    await page.context().close()
  })
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
    const picture = await chart(page, 'redis-suppressed', 'rates').innerHTML()
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
    await until(`${id}: the chart moves`, async () => (await chart(page, 'redis-suppressed', 'rates').innerHTML()) !== picture)
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

test('a lower limit acts at once', async () => {
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
  for (const shape of ['step', 'spike', 'sine', 'on-off', 'greedy', 'steady']) {
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
  await until('decisions without Redis', async () => {
    for (const lane of ['redis-absolute', 'redis-suppressed', 'hybrid-absolute']) {
      if (!(await troubled(page, lane)) || (await withoutRedis(page, lane)) === 0) return false
    }
    return true
  })
  assert.equal(await withoutRedis(page, 'local-absolute'), 0, 'Local wants Redis')
  await well(visited)
  await screenshot(page, 'demo-without-redis')
  await page.getByRole('button', { name: 'Restore Redis' }).click()
  let last = -1
  await until('no more decisions without Redis', async () => {
    const was = last
    last = await withoutRedis(page, 'redis-absolute')
    await ticks(page, 2)
    return last === was
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
  await one.page.locator('#load').fill('0.5') // for a while, so that there is not too much to do
  await until('the other tab has the load', async () => (await two.page.locator('#load').inputValue()) === '0.5')
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

test('the end of the program is said, and it ends well', async () => {
  const short = await start('--instances', '3', '--rate', '10')
  const { page } = await visit(looks[0], short.url)
  assert.equal(await page.locator('#instances').inputValue(), '3')
  short.process.kill('SIGINT')
  assert.equal(await short.ended, 0, short.said)
  assert.match(short.out, /hybrid suppressed .* of 30 /)
  await until('the page says so', async () => (await page.locator('#notice').textContent()).startsWith('The program has ended'))
  await page.context().close()
})
