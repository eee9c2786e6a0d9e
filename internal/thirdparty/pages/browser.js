// A headless Chromium, and the pages that are opened in it: each keeps a list of all that went wrong.
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { test as nodeTest } from 'node:test'
import { fileURLToPath } from 'node:url'
import axe from 'axe-core'
import { chromium } from 'playwright-core'

const here = dirname(fileURLToPath(import.meta.url))

export const repository = dirname(dirname(dirname(here)))

/** The programs, which pages_test.go has built. */
export const program = process.env.TRYPEMA
export const bench = process.env.BENCH

/** How long anything may take, on a machine that is busy. */
export const patience = 180_000

const screenshots = join(here, 'screenshots')

/** Whether tests explore. */
export const long = process.env.TRYPEMA_EXPLORE === '1'

/** A test that "make test" runs. */
export const test = (name, f) => nodeTest(name, { timeout: 2 * patience }, f)

/** One that there is time for where tests explore. */
export const longTest = (name, f) =>
  nodeTest(name, { timeout: 4 * patience, skip: long ? false : 'TRYPEMA_EXPLORE=1 runs it (make test-long)' }, f)

/** Sizes and themes that every page must look well in. */
export const looks = [
  { name: 'light-desk', colorScheme: 'light', viewport: { width: 1280, height: 800 }, test },
  { name: 'dark-phone', colorScheme: 'dark', viewport: { width: 390, height: 844 }, test },
  { name: 'light-phone', colorScheme: 'light', viewport: { width: 390, height: 844 }, test: longTest },
  { name: 'dark-desk', colorScheme: 'dark', viewport: { width: 1280, height: 800 }, test: longTest },
]

export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM, timeout: patience, args: ['--no-sandbox'] }) // in a container root can not have the sandbox
}

/** Opens a page with a look, and returns it with the list of errors that it fills. */
export async function open(browser, url, { colorScheme, viewport }) {
  const context = await browser.newContext({ colorScheme, viewport })
  context.setDefaultTimeout(patience)
  const page = await context.newPage()
  const errors = []
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) errors.push(message.text())
  })
  page.on('pageerror', (error) => errors.push(String(error)))
  page.on('requestfailed', (request) => {
    if (request.failure().errorText !== 'net::ERR_ABORTED') errors.push(`${request.url()}: ${request.failure().errorText}`)
  })
  page.on('request', (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) errors.push(`it asks for ${request.url()}`)
  })
  await page.goto(url)
  return { page, errors }
}

/** What axe has to say against a page: nothing, it is hoped. Axe is run from outside, as pages allow no scripts of others. */
export async function complaints(page) {
  const context = page.context()
  const session = await context.newCDPSession(page)
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await session.send('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true })
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text)
    return result.value
  }
  await evaluate(axe.source)
  const violations = await evaluate(`axe.run(document, { resultTypes: ['violations'], selectors: false }).then(({ violations }) =>
    violations.map((v) => v.id + ': ' + v.help + '; ' + v.nodes.map((n) => n.html.slice(0, 120)).join(' | ')))`)
  await session.detach()
  return violations
}

/** The texts of a page that are smaller than so many pixels, as they are rendered, with their sizes. */
export const smallTexts = (page, least) => page.evaluate((min) => {
  const found = []
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((child) => child.nodeType === Node.TEXT_NODE && child.data.trim() !== '')
    if (!own || node.getClientRects().length === 0) continue
    let size = parseFloat(getComputedStyle(node).fontSize)
    if (node instanceof SVGGraphicsElement) size *= Math.abs(node.getScreenCTM().d)
    if (size < min - 0.05) found.push(`${size.toFixed(1)} px: ${node.textContent.trim().slice(0, 40)}`)
  }
  return [...new Set(found)]
}, least)

/** How far a page is wider than the window, in pixels. */
export const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)

export async function screenshot(page, name, fullPage = true) {
  mkdirSync(screenshots, { recursive: true })
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage })
}
