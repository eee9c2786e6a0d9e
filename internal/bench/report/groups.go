package report

import "slices"

// group is some steps that are shown together.
type group struct {
	ID, Title, About string

	Open  bool // others are folded
	steps []string
}

// groups have all steps, in the order in which they are shown.
var groups = []group{
	{
		ID: "part-speed", Title: "Decisions per second", Open: true,
		About: "Limiters in one process, called by all processors at once. Trypema is blue. " +
			"A bar is the median of the rounds, and the thin line goes from the least to the greatest.",
		steps: []string{
			"hot-over", "hot-under", "skewed", "uniform-100k", "uniform-1m", "uniform-10m", "seldom-100k",
			"suppressed-hot", "suppressed-100k",
		},
	},
	{
		ID: "part-accuracy", Title: "Accuracy", Open: true,
		About: "What is admitted of what is offered. " +
			"More than the limit is a broken promise, and less is lost capacity.",
		steps: []string{"windows", "accuracy-suppressed", "accuracy"},
	},
	{
		ID: "part-servers", Title: "Redis and Hybrid", Open: true,
		About: "Limits that several processes share. The Redis server runs on the same machine.",
		steps: []string{
			"redis-hot", "redis-10k", "redis-alone", "hybrid-hot", "hybrid-100k", "hybrid-suppressed-10k",
			"windows-redis", "accuracy-redis", "accuracy-hybrid", "accuracy-hybrid-suppressed",
			"redis-grid", "hybrid-grid",
		},
	},
	{
		ID: "part-latency", Title: "Latency",
		About: "How long a call takes when calls come at a given rate.",
		steps: []string{"tail"},
	},
	{
		ID: "part-scaling", Title: "More keys, buckets and processors",
		About: "What a call costs as something grows.",
		steps: []string{"growth", "buckets", "processors"},
	},
	{
		ID: "part-memory", Title: "Memory",
		About: "What a limiter holds for a key, and what that means for the garbage collector.",
		steps: []string{"memory-100k", "memory-1k", "memory-1m", "memory-10m"},
	},
	{
		ID: "part-machine", Title: "What the machine allows",
		About: "The parts that every decision has, measured alone.",
		steps: []string{"floors"},
	},
}

// titles are those of the steps as they are called now, whatever they were called when they were measured.
var titles = func() map[string]step {
	all := make(map[string]step)
	for _, s := range full.steps() { // which has those of all efforts
		all[s.ID] = s
	}
	return all
}()

// titled is a result with the title and the text of its step.
func titled(r result) result {
	if s, known := titles[r.ID]; known {
		r.Title, r.About = s.Title, s.About
	}
	return r
}

// grouped are the results of a group, in its order. The last group has those that are in none, too: they were
// measured by another version.
func (d *document) grouped(g group) (all []result) {
	for _, id := range g.steps {
		if r := d.step(id); r != nil {
			all = append(all, titled(*r))
		}
	}
	if g.ID != groups[len(groups)-1].ID {
		return all
	}
	for _, r := range d.Steps {
		if !slices.ContainsFunc(groups, func(g group) bool { return slices.Contains(g.steps, r.ID) }) {
			all = append(all, r)
		}
	}
	return all
}
