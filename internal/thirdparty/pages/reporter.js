// Reports each test of node as a line of JSON, when it has ended.
export default async function* (events) {
  for await (const { type, data } of events) {
    if (type === 'test:pass' || type === 'test:fail') {
      const { name, nesting, skip, details } = data
      const error = type === 'test:fail' ? String(details.error?.cause?.stack ?? details.error?.cause ?? details.error) : ''
      yield JSON.stringify({ name, nesting, skip: skip === true ? 'skipped' : skip || '', error, took_ms: details.duration_ms }) + '\n'
    }
  }
}
