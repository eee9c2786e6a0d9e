package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trypema/trypema/internal/cli"
	"github.com/trypema/trypema/internal/cli/clitest"
)

func TestVersionFlag(t *testing.T) {
	code, stdout, stderr := clitest.Run(t.Context(), program(), "--version")
	if code != cli.ExitOK || stderr != "" || !strings.HasPrefix(stdout, "trypema ") ||
		strings.Count(stdout, "\n") != 1 {
		t.Errorf("exit status %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

// asked are command lines, with "|" where the cursor is, a word that a shell must propose there, and one that
// it must not.
var asked = []struct{ line, want, not string }{
	{"trypema |", "demo", "--rate"},
	{"trypema --v|", "--version", "demo"},
	{"trypema re|", "replay", "demo"},
	{"trypema demo --ra|", "--rate", "--load"},
	{"trypema demo --headless --prov|", "--provider", "--rate"},
	{"trypema sim --va|", "--vary", "--rate"},
	{"trypema completion z|", "zsh", "bash"},
}

// Each shell runs its script, and proposes what can follow.
func TestCompletion(t *testing.T) {
	// Each prints the words that the shell proposes for the line of the variable LINE.
	shells := map[string]string{
		"bash": `source "$SCRIPT"
words=($LINE)
[[ $LINE != *' ' ]] || words+=('')
COMP_WORDS=("${words[@]}") COMP_CWORD=$((${#words[@]} - 1))
_trypema
printf '%s\n' "${COMPREPLY[@]}"`,
		"zsh": `compdef() { : }
_describe() { print -rl -- "${(@)${(P)2}%%:*}" | grep -e "^${words[CURRENT]}" }
_files() { : }
source "$SCRIPT"
words=("${(@s: :)LINE}")
CURRENT=$#words
_trypema`,
		"fish": `source "$SCRIPT"; complete -C "$LINE" | string replace -r '\t.*' ''; true`,
	}
	for shell, program := range shells {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skipf("%s is not installed", shell)
			}
			script := filepath.Join(t.TempDir(), "script")
			if err := os.WriteFile(script, []byte(printed(t, shell)), 0o600); err != nil {
				t.Fatal(err)
			}
			for _, tt := range asked {
				c := exec.CommandContext(t.Context(), path, "-c", program)
				c.Env = append(os.Environ(), "SCRIPT="+script, "LINE="+strings.TrimSuffix(tt.line, "|"),
					"HOME="+t.TempDir())
				out, err := c.CombinedOutput()
				words := " " + strings.Join(strings.Fields(string(out)), " ") + " "
				if err != nil || !strings.Contains(words, " "+tt.want+" ") || strings.Contains(words, " "+tt.not+" ") {
					t.Errorf("%s: %v; it proposes%s\nwant %s and not %s", tt.line, err, words, tt.want, tt.not)
				}
			}
		})
	}
}

// Every command and every flag is in the script of every shell, also where the shell is not installed.
func TestCompletionHasEverything(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := printed(t, shell)
		for _, want := range []string{"demo", "replay", "sim", "completion", "version", "headless",
			"sync-interval", "vary", "suggest", "help"} {
			if !strings.Contains(script, want) {
				t.Errorf("%s: nothing completes %s", shell, want)
			}
		}
	}
}

func printed(t *testing.T, shell string) string {
	t.Helper()
	code, stdout, stderr := clitest.Run(t.Context(), program(), "completion", shell)
	if code != cli.ExitOK || stderr != "" {
		t.Fatalf("exit status %d, stderr %q", code, stderr)
	}
	return stdout
}
