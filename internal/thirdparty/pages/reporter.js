// Tells pages_test.go of each test, one line of JSON each.
export default async function* report(source) {
  for await (const { type, data } of source) {
    if (!['test:pass', 'test:fail'].includes(type) || data.details?.type === 'suite') continue
    const { cause } = data.details?.error ?? {}
    yield JSON.stringify({
      name: data.name,
      passed: type === 'test:pass',
      skipped: data.skip === undefined ? '' : String(data.skip),
      error: type === 'test:pass' ? '' : (cause?.stack ?? String(cause ?? data.details?.error)),
    }) + '\n'
  }
}
