package serve

import (
	"bytes"
	_ "embed"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/trypema/trypema/cmd/trypema/internal/serve/engine"
	"github.com/trypema/trypema/cmd/trypema/internal/serve/rules"
)

// What is served without a configuration.
var (
	//go:embed example/policies.yaml
	examplePolicies []byte
	//go:embed example/ratelimit.yaml
	exampleDomain []byte
)

// loader reads the configuration, and puts it in place when it has changed.
type loader struct {
	engine *engine.Engine
	paths  []string // none for the example
	merge  bool
	logger *slog.Logger
	loaded func(err error)

	mu      sync.Mutex   // guards what follows, and is held while files are read
	seen    []rules.File // at the last look
	tried   []rules.File // what was put in place, or refused, last
	trouble string       // why files could not be read

	stateMu sync.Mutex // guards state
	state   state
}

// state is what /rlconfig and /readyz say of the configuration.
type state struct {
	at  time.Time // when it was put in place
	err error     // what was wrong with a newer one
}

func (l *loader) read() ([]rules.File, error) {
	if len(l.paths) == 0 {
		return []rules.File{
			{Name: "example/policies.yaml", Data: examplePolicies},
			{Name: "example/ratelimit.yaml", Data: exampleDomain},
		}, nil
	}
	return rules.Read(l.paths...)
}

// load reads the configuration and puts it in place. If it is wrong, the old one stays.
func (l *loader) load() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.useLocked(l.read())
}

// use puts files in place that came from elsewhere, unless they are wrong, or err says what was.
func (l *loader) use(files []rules.File, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.useLocked(files, err)
}

func (l *loader) useLocked(files []rules.File, err error) error {
	var set *rules.Set
	if err == nil {
		l.seen, l.tried = files, files
		set, err = rules.Compile(files, rules.Options{MergeDomains: l.merge})
	}
	if err == nil {
		err = l.engine.Use(set)
	}
	l.tell(err)
	return err
}

// look reads the files, and puts them in place after two identical reads, so that a file that is just being
// written is not.
func (l *loader) look() {
	l.mu.Lock()
	defer l.mu.Unlock()
	files, err := l.read()
	if err != nil {
		if l.trouble != err.Error() {
			l.trouble = err.Error()
			l.tell(err)
		}
		l.seen = nil
		return
	}
	l.trouble = ""
	if !same(files, l.seen) {
		l.seen = files
		return
	}
	if !same(files, l.tried) {
		_ = l.useLocked(files, nil) // it was told
	}
}

func same(a, b []rules.File) bool {
	return slices.EqualFunc(a, b,
		func(a, b rules.File) bool { return a.Name == b.Name && bytes.Equal(a.Data, b.Data) })
}

// tell notes what became of a configuration.
func (l *loader) tell(err error) {
	l.stateMu.Lock()
	l.state.err = err
	if err == nil {
		l.state.at = time.Now()
	}
	first := l.state.at.IsZero() && len(l.paths) > 0
	l.stateMu.Unlock()
	l.loaded(err)
	if err == nil {
		set := l.engine.Set()
		l.logger.Info("configuration in use", "files", len(set.Files), "rules", len(set.Rules()), "policies",
			len(set.Policies))
		return
	}
	if first {
		return // the program ends, and says why
	}
	for _, one := range rules.Errors(err) {
		l.logger.Error("the configuration stays as it was", "err", one)
	}
}

func (l *loader) current() state {
	l.stateMu.Lock()
	defer l.stateMu.Unlock()
	return l.state
}

// watch looks at the files of the configuration and of certificates.
func (l *loader) watch(certificates []*certificate) {
	if len(l.paths) > 0 {
		l.look()
	}
	reloadAll(certificates, l.logger)
}

// reloadAll reads certificates again, and logs what is wrong, once.
func reloadAll(all []*certificate, logger *slog.Logger) {
	for _, c := range all {
		changed, err := c.reload()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if old := c.trouble.Swap(&text); err != nil && (old == nil || *old != text) {
			logger.Error("the certificate stays as it was", "file", c.Cert, "err", err)
		}
		if changed {
			logger.Info("certificate in use", "file", c.Cert)
		}
	}
}
