package policyfile_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trypema/trypema"
	"github.com/trypema/trypema/policyfile"
)

const plans = `policies:
  - name: free
    limits:
      - {name: burst, rate: 10/s}
      - {name: day, rate: 1000/d}
  - name: pro
    strategy: suppressed
    limits:
      - {rate: 100/m, window: 10s}
`

func ExampleParse() {
	list, err := policyfile.Parse("plans.yaml", []byte(plans))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, p := range list {
		for _, l := range p.Limits {
			capacity, _ := l.Rate.Capacity(l.Window)
			fmt.Println(p.Name, p.Strategy, l.Label(), capacity, "in", l.Window)
		}
	}
	// Output:
	// free absolute burst 10 in 1s
	// free absolute day 1000 in 24h0m0s
	// pro suppressed 10s 16 in 10s
}

// All that is wrong is said at once.
func ExampleParse_wrong() {
	_, err := policyfile.Parse("plans.yaml", []byte(`policies:
  - name: free
    limits:
      - {name: burst, rate: 10/fortnight}
  - name: pro
    strategy: strict
    limits:
      - {rate: 100/m, windw: 10s}
`))
	fmt.Println(err)
	// Output:
	// plans.yaml:4:29: policy "free": limit "burst": rate is "10/fortnight"; it must be a number above 0 per time, as in 10/s, 1000/h, 20/d or 5/15m; or unlimited
	// plans.yaml:6:15: policy "pro": strategy is "strict"; it must be absolute or suppressed
	// plans.yaml:8:23: policy "pro": limit 1 has a field "windw"; it may have name, rate, window, limit, unlimited
}

func ExampleLoad() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // it is a folder for temporary files
	path := filepath.Join(dir, "plans.yaml")
	if err := os.WriteFile(path, []byte(plans), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	list, err := policyfile.Load(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	p, err := trypema.NewPolicies(limits, list...)
	if err != nil {
		fmt.Println(err)
		return
	}
	d, err := p.Allow(context.Background(), "free", "customer:42")
	fmt.Println(d.Allowed, d.Remaining, err)
	// Output: true 9 <nil>
}

// What is in the file is what is in use, until the context ends.
func ExampleWatch() {
	limits, err := trypema.NewLocal(trypema.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer limits.Close()
	list, err := policyfile.Parse("plans.yaml", []byte(plans)) // a program has them from Load
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := trypema.NewPolicies(limits, list...)
	if err != nil {
		fmt.Println(err)
		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	policyfile.Watch(ctx, "no such file", time.Second, p.Swap, func(err error) {
		fmt.Println("the policies stay as they are:", os.IsNotExist(err), p.Names())
		cancel()
	})
	// Output: the policies stay as they are: true [free pro]
}
