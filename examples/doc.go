// Package examples holds programs that show the limiter at work, each in a folder of its own:
//
//   - api, an HTTP API with plans
//   - llm, a language model that streams its answers, with a budget
//   - workers, a fleet that shares a limit
//   - fetch, a command line tool that is polite to the hosts that it asks
//   - saas, a whole service with tenants
package examples
