package figure

import (
	"fmt"
	"image/color"
	"strings"
	"testing"

	"gonum.org/v1/plot"
)

// TestThemeHasEveryColor: what is drawn is seen on a dark page, too.
func TestThemeHasEveryColor(t *testing.T) {
	for _, c := range append([]color.Color{Grey, Faint, color.White, color.Black}, Colours...) {
		r, g, b, _ := c.RGBA()
		name := fmt.Sprintf("#%02X%02X%02X", r>>8, g>>8, b>>8)
		for _, use := range []string{"fill", "stroke"} {
			if !strings.Contains(Theme, fmt.Sprintf(`[style*="%s:%s"]{%s:#`, use, name, use)) {
				t.Errorf("the theme has no %s %s", use, name)
			}
		}
	}
}

// TestTextsHaveALength: no text is wider than it was when the picture was laid out, whatever the font.
func TestTextsHaveALength(t *testing.T) {
	p := Blank("one & two", "")
	p.X.Min, p.X.Max, p.Y.Min, p.Y.Max = 0, 1, 0, 1
	svg, err := SVG(Width, Tall, []*plot.Plot{p})
	if err != nil {
		t.Fatal(err)
	}
	text := string(svg)
	texts, fitted := strings.Count(text, "<text "), strings.Count(text, "<text textLength=")
	if texts < 5 || fitted != texts || !strings.Contains(text, ">one &amp; two<") {
		t.Errorf("%d of %d texts have a length:\n%s", fitted, texts, text)
	}
	if alone := string(Alone(svg)); !strings.HasPrefix(alone, "<svg") || strings.Count(alone, "<style>") != 1 ||
		strings.Index(alone, "<style>") > strings.Index(alone, "<text") {
		t.Errorf("alone it is %.600s", alone)
	}
}
