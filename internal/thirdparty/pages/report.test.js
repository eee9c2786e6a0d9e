// The page of a report: every picture of it is drawn, in every look. It is drawn from the measurements that
// docs/benchmarks.md shows, or REPORT names the folder of another report.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { pathToFileURL } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { bench, complaints, launch, longTest, looks, open, overflow, repository, screenshot } from './browser.js'

let browser, folder, made

before(async () => {
  folder = process.env.REPORT
  if (!folder) {
    folder = made = mkdtempSync(join(tmpdir(), 'trypema-report-'))
    const measured = readFileSync(join(repository, 'docs', 'benchmarks', 'measurements.json.gz'))
    writeFileSync(join(folder, 'measurements.json'), gunzipSync(measured))
    execFileSync(bench, ['report', '--redraw', '--out', folder])
  }
  browser = await launch()
})

after(async () => {
  await browser?.close()
  if (made) rmSync(made, { recursive: true })
})

/** What a picture shows, by rendering it alone: the part of its pixels that are not its background, and how many colours they have. */
const drawn = (svg) =>
  svg.evaluate(async (node) => {
    const image = new Image()
    image.src = 'data:image/svg+xml;charset=utf-8,' + encodeURIComponent(new XMLSerializer().serializeToString(node))
    await image.decode()
    const canvas = document.createElement('canvas')
    canvas.width = 230
    canvas.height = Math.round((230 * image.naturalHeight) / image.naturalWidth)
    const context = canvas.getContext('2d')
    context.fillStyle = '#fff'
    context.fillRect(0, 0, canvas.width, canvas.height)
    context.drawImage(image, 0, 0, canvas.width, canvas.height)
    const pixels = new Uint32Array(context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)
    const colours = new Map()
    for (const p of pixels) colours.set(p, (colours.get(p) ?? 0) + 1)
    const background = Math.max(...colours.values())
    return { ink: 1 - background / pixels.length, colours: colours.size }
  })

for (const look of looks) {
  look.test(`report, ${look.name}`, async () => {
    const { page, errors } = await open(browser, pathToFileURL(join(folder, 'report.html')).href, look)
    assert.equal(await page.locator('.opening li').count(), 5, 'sentences at the top')
    assert.ok(await page.locator('#figure-overview').evaluate((node) => node.getBoundingClientRect().top < 0.8 * innerHeight), 'the picture is not on the first screen')
    const screens = await page.evaluate(() => document.documentElement.scrollHeight / innerHeight)
    assert.ok(screens <= 12, `it has ${screens.toFixed(1)} screens`)
    assert.equal(await overflow(page), 0, 'the page is wider than the window')
    await screenshot(page, `report-${look.name}`)
    assert.deepEqual(await complaints(page), [])
    await page.evaluate(() => { for (const fold of document.querySelectorAll('details')) fold.open = true })
    const figures = await page.locator('figure').evaluateAll((all) => all.map((figure) => {
      const { width, height } = figure.querySelector('svg').getBoundingClientRect()
      return { id: figure.id, width, height, letters: getComputedStyle(figure.querySelector('svg text')).fill }
    }))
    const files = readdirSync(folder).filter((name) => name.endsWith('.svg'))
    assert.equal(figures.length, files.length, 'figures in the page, and files')
    assert.ok(figures.length > 0, 'there is no figure')
    for (const { id, width, height, letters } of figures) {
      assert.ok(width > 300 && height > 50, `${id} is ${width} by ${height}`)
      assert.equal(letters, look.colorScheme === 'dark' ? 'rgb(230, 237, 243)' : 'rgb(0, 0, 0)', `the letters of ${id}`)
      if (look !== looks[0]) continue // a picture is drawn alone, so the look does not change it
      const { ink, colours } = await drawn(page.locator(`#${id} svg`))
      assert.ok(ink > 0.01 && colours > 3, `${id} is empty: ${colours} colours, ${ink} of it`)
    }
    assert.ok((await page.locator('#all-promises tbody tr').count()) > 20, 'the table of promises')
    assert.equal(await overflow(page), 0, 'the page is wider than the window with all unfolded')
    assert.deepEqual(errors, [])
    if (look.test === longTest) assert.deepEqual(await complaints(page), [])
    await page.context().close()
  })
}
