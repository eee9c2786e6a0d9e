package report

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trypema/trypema/internal/bench/measure"
)

// document is a report: where and when it was measured, and all that was. Its JSON is kept in the folder of
// the report, so that one that was interrupted can go on, and a complete one can be drawn again.
type document struct {
	Effort    string    `json:"effort"`
	Machine   machine   `json:"machine"`
	Began     time.Time `json:"began"`
	Ended     time.Time `json:"ended"` // so far
	Interrupt int       `json:"interruptions"`
	Missing   []string  `json:"missing"` // what could not be measured here, and why
	Steps     []result  `json:"steps"`
	Done      int       `json:"done"` // measurements: steps, and later passes over some of them
	Expected  int       `json:"expected"`
}

// result is what came of a step. Of the pointers and lists, those of its kind are there.
type result struct {
	ID       string   `json:"id"`
	Title    string   `json:"title"`
	About    string   `json:"about"`
	Commands []string `json:"commands"` // that measure the same
	Passes   int      `json:"passes"`
	Took     float64  `json:"took_ms"`
	Failed   string   `json:"failed"` // the whole step

	Comparison *measure.Comparison `json:"comparison,omitempty"`
	Accuracy   []measure.Accuracy  `json:"accuracy,omitempty"`
	Fullest    []measure.Fullest   `json:"fullest,omitempty"`
	Memory     []measure.Footprint `json:"memory,omitempty"`
	Floors     *measure.Floors     `json:"floors,omitempty"`
}

// complete reports whether there is nothing to go on with.
func (d *document) complete() bool { return d.Done >= d.Expected }

// has reports whether a step has been measured.
func (d *document) has(s step) bool {
	r := d.step(s.ID)
	return r != nil && r.Passes >= s.pass
}

// add takes the result of a step. The rounds of a later pass go to those of the first.
func (d *document) add(s step, r result) {
	d.Done++
	first := d.step(s.ID)
	if first == nil {
		r.Passes = s.pass
		d.Steps = append(d.Steps, r)
		return
	}
	first.Passes = s.pass
	first.Took += r.Took
	first.Failed = cmp.Or(first.Failed, r.Failed)
	if first.Comparison != nil && r.Comparison != nil {
		first.Comparison.Add(r.Comparison)
	}
}

func (d *document) step(id string) *result {
	for i := range d.Steps {
		if d.Steps[i].ID == id {
			return &d.Steps[i]
		}
	}
	return nil
}

// row is the row of a limiter in a comparison, or in one case of several; nil if it was not measured or has
// failed.
func (d *document) row(step, label, limiter string) *measure.Compared {
	r := d.step(step)
	if r == nil || r.Comparison == nil {
		return nil
	}
	for i, x := range r.Comparison.Limiters {
		if x.Limiter == limiter && x.Case == label && x.Failed == "" {
			return &r.Comparison.Limiters[i]
		}
	}
	return nil
}

// The files of a report.
const (
	measurementsFile = "measurements.json"
	pageFile         = "report.html"
	tableFile        = "report.md"
)

// load reads the document in a folder; nil if there is none.
func load(dir string) (*document, error) {
	path := filepath.Join(dir, measurementsFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := new(document)
	if err := json.Unmarshal(text, d); err != nil {
		return nil, fmt.Errorf("%s is not the work of bench report: %w", path, err)
	}
	return d, nil
}

// save writes the document into a folder.
func (d *document) save(dir string) error {
	text, err := json.MarshalIndent(d, "", " ")
	if err != nil {
		return err
	}
	return write(dir, measurementsFile, append(text, '\n'))
}

// write replaces a file as a whole: whatever happens, there is the old one or the new one.
func write(dir, name string, text []byte) (err error) {
	f, err := os.CreateTemp(dir, "."+name+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		err = errors.Join(fmt.Errorf("%s: %w", filepath.Join(dir, name), err), os.Remove(f.Name()))
	}
	return err
}
