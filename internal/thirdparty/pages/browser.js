// A headless Chromium, and the pages that are opened in it: each keeps a list of all that went wrong.
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { chromium } from 'playwright-core'

const here = dirname(fileURLToPath(import.meta.url))

export const repository = join(here, '..', '..', '..')

/** The program, and whether tests look at more than 'make test' has time for. */
export const program = process.env.TRYPEMA
export const exploring = process.env.TRYPEMA_EXPLORE === '1'

/** What a machine may take that is too slow to be true, in ms. */
export const patience = 300_000

const screenshots = join(here, 'screenshots')

/** Sizes and themes that every page must look well in: each of them once, and all of both when tests explore. */
export const looks = ['light', 'dark'].flatMap((colorScheme) => [
  { name: `${colorScheme}-desk`, colorScheme, viewport: { width: 1280, height: 800 } },
  { name: `${colorScheme}-phone`, colorScheme, viewport: { width: 390, height: 844 } },
]).filter(({ name }) => exploring || ['light-phone', 'dark-desk'].includes(name))

export async function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] }) // in a container root can not have the sandbox
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

/** How far a page is wider than the window, in pixels. */
export const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)

export async function screenshot(page, name) {
  mkdirSync(screenshots, { recursive: true })
  await page.screenshot({ path: join(screenshots, `${name}.png`), fullPage: true })
}
