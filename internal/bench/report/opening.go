package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Opening is what the report comes to, in a few sentences: on what machine, how accurate, where Trypema is
// ahead, where it is behind, and which marks it misses. What was not measured is not spoken of.
func (d *document) Opening() (sentences []string) {
	sentences = append(sentences, fmt.Sprintf(
		"Measured on %d × %s with %s on %s: compare numbers within this report alone.",
		d.Machine.Processors, d.Machine.Processor, d.Machine.Go, d.Began.UTC().Format("2006-01-02")))
	if s := d.accuracySentence(); s != "" {
		sentences = append(sentences, s)
	}
	ahead, behind := d.standings()
	if len(ahead) > 0 {
		byRatio := func(a, b faster) int { return cmp.Compare(a.next.ratio, b.next.ratio) }
		sentences = append(sentences, fmt.Sprintf("Trypema decides faster than all others on %d of %d workloads, "+
			"from %s to %s.", len(ahead), len(ahead)+len(behind),
			slices.MinFunc(ahead, byRatio), slices.MaxFunc(ahead, byRatio)))
	}
	if len(behind) > 0 {
		sentences = append(sentences, "It is slower than the fastest other limiter on "+enumerate(behind)+".")
	}
	reached, missed := 0, 0
	for _, p := range d.promises() {
		switch p.Verdict() {
		case "✓":
			reached++
		case missedMark:
			missed++
		}
	}
	if reached+missed > 0 {
		sentences = append(sentences, fmt.Sprintf("Of the %d marks that its design sets, it reaches %d and misses %d.",
			reached+missed, reached, missed))
	}
	return sentences
}

// accuracySentence is about the fullest windows; empty without them.
func (d *document) accuracySentence() string {
	most, others, above, worst := 0.0, 0, 0, 0.0
	seen := make(map[string]bool)
	for _, id := range []string{"windows", "windows-redis"} {
		r := d.step(id)
		if r == nil {
			continue
		}
		for _, f := range r.Fullest {
			switch {
			case f.Ratio == nil || f.Failed != "":
			case ours(f.Limiter):
				most = max(most, *f.Ratio)
			case !seen[f.Limiter]:
				seen[f.Limiter] = true
				others++
				if *f.Ratio > 1 {
					above++
					worst = max(worst, *f.Ratio)
				}
			}
		}
	}
	switch {
	case most == 0:
		return ""
	case above == 0:
		return fmt.Sprintf("In its fullest window Trypema admitted %s\u00a0× the limit.", hundredths(most))
	}
	return fmt.Sprintf("In its fullest window Trypema admitted %s\u00a0× the limit; "+
		"of %d other limiters %d admitted more than the limit, up to %s\u00a0×.", hundredths(most), others, above,
		hundredths(worst))
}

// standings are the workloads on which Trypema is faster than all others, and those on which it is not.
func (d *document) standings() (ahead, behind []faster) {
	for _, f := range d.overview() {
		if f.next.ratio >= 1 {
			ahead = append(ahead, f)
		} else {
			behind = append(behind, f)
		}
	}
	return ahead, behind
}

// ratio has two digits that matter.
func ratio(x float64) string {
	switch {
	case x >= 9.95:
		return fmt.Sprintf("%.0f\u00a0×", x)
	case x >= 0.995:
		return fmt.Sprintf("%.1f\u00a0×", x)
	}
	return fmt.Sprintf("%.2f\u00a0×", x)
}

// lower begins a title in a sentence. Names stay as they are.
func lower(title string) string {
	first, _, _ := strings.Cut(title, " ")
	if slices.Contains([]string{"Redis:", "Hybrid:", "Hybrid,", "Hybrid", "Suppressed:"}, first) {
		return title
	}
	r, n := utf8.DecodeRuneInString(title)
	return string(unicode.ToLower(r)) + title[n:]
}

// enumerate is a list in a sentence, whose parts may have commas.
func enumerate(all []faster) string {
	var parts []string
	for _, s := range all {
		parts = append(parts, s.String())
	}
	if len(parts) < 2 {
		return strings.Join(parts, "")
	}
	return strings.Join(parts[:len(parts)-1], "; ") + "; and " + parts[len(parts)-1]
}
