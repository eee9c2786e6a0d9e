// The page of a report: every picture of it is drawn, in every look. It is drawn anew from the measurements
// that docs/benchmarks.md shows, or REPORT names the folder of another report.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { pathToFileURL } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { bench, launch, looks, open, overflow, repository, screenshot } from './browser.js'

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
    canvas.width = 460
    canvas.height = Math.round((460 * image.naturalHeight) / image.naturalWidth)
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
    const figures = await page.locator('figure').all()
    const files = readdirSync(folder).filter((name) => name.endsWith('.svg'))
    assert.equal(figures.length, files.length, 'figures in the page, and files')
    assert.ok(figures.length > 0, 'there is no figure')
    for (const figure of figures) {
      const id = await figure.getAttribute('id')
      const svg = figure.locator('svg')
      const { width, height } = await svg.boundingBox()
      assert.ok(width > 300 && height > 50, `${id} is ${width} by ${height}`)
      if (look !== looks[0]) continue // a picture is drawn alone, so the look does not change it
      const { ink, colours } = await drawn(svg)
      assert.ok(ink > 0.01 && colours > 3, `${id} is empty: ${colours} colours, ${ink} of it`)
    }
    assert.ok((await page.locator('#promises + .scroll tbody tr').count()) > 20, 'the table of promises')
    assert.equal(await overflow(page), 0, 'the page is wider than the window')
    assert.deepEqual(errors, [])
    await screenshot(page, `report-${look.name}`)
    await page.context().close()
  })
}
