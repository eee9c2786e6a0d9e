//go:build never

package thirdparty

// The libraries that docs/migrating.md shows code of, so that go.mod has them: the code itself is in the
// documents, and TestDocumentsCompile compiles it.
import (
	_ "github.com/didip/tollbooth/v8"
	_ "github.com/go-chi/httprate"
	_ "github.com/go-redis/redis_rate/v10"
	_ "github.com/throttled/throttled/v2"
	_ "github.com/ulule/limiter/v3"
	_ "github.com/ulule/limiter/v3/drivers/middleware/stdlib"
	_ "github.com/ulule/limiter/v3/drivers/store/memory"
	_ "golang.org/x/time/rate"
)
