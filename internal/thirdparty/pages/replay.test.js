// The page of trypema replay: of a public log, in every look.
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before } from 'node:test'
import { pathToFileURL } from 'node:url'
import { complaints, launch, looks, open, overflow, program, repository, screenshot, smallTexts } from './browser.js'

let browser, folder

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'trypema-replay-'))
  const log = join(repository, 'cmd/trypema/internal/replay/testdata/apache.log.gz')
  execFileSync(program, ['replay', log, '--limit', '30/1m', '--limit', '10/10s,100/1h', '--strategy', 'both', '--suggest', '99',
    '--html', join(folder, 'page.html')])
  browser = await launch()
})

after(async () => {
  await browser?.close()
  rmSync(folder, { recursive: true })
})

for (const look of looks) {
  look.test(`replay, ${look.name}`, async () => {
    const { page, errors } = await open(browser, pathToFileURL(join(folder, 'page.html')).href, look)
    assert.equal(await page.locator('figure svg').count(), 5, 'the keys, and the calls under each of four rules')
    for (const figure of await page.locator('figure svg').all()) {
      const clipped = await figure.evaluate((svg) => [...svg.querySelectorAll('text')]
        .filter((text) => { const [a, b] = [text, svg].map((node) => node.getBoundingClientRect()); return a.left < b.left - 1 || a.right > b.right + 1 })
        .map((text) => text.textContent))
      assert.deepEqual(clipped, [], 'labels that are cut off')
    }
    assert.deepEqual(await smallTexts(page, 12), [])
    assert.equal(await overflow(page), 0, 'the page is wider than the window')
    await screenshot(page, `replay-${look.name}`)
    await page.evaluate(() => { for (const fold of document.querySelectorAll('details')) fold.open = true })
    assert.deepEqual(await complaints(page), [])
    assert.deepEqual(errors, [])
    await page.context().close()
  })
}
