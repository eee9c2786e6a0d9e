package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/trypema/trypema/internal/cli/screen"
)

// Completion is the command that prints what a shell needs to complete a command line of the program: its
// commands and their flags. What is not one of these is completed as a file.
type Completion struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is the text of completion --help.
func (Completion) Help() string {
	return `Completes commands and flags, after one of these lines in the file that the shell reads at its start:

  bash: source <(trypema completion bash)
  zsh:  source <(trypema completion zsh), after compinit
  fish: trypema completion fish | source`
}

// Run prints the script.
func (c Completion) Run(k *kong.Kong, out screen.Streams) error {
	all := levels(k.Model.Node, "")
	switch c.Shell {
	case "bash":
		bash(out.Out, k.Model.Name, all)
	case "zsh":
		zsh(out.Out, k.Model.Name, all)
	case "fish":
		fish(out.Out, k.Model.Name, all)
	}
	return nil
}

// level is what can follow the program or one of its commands.
type level struct {
	command string // the names of the commands before it, with a space between them; empty for the program
	words   []word
}

// word is a command, a flag, or a value that an argument can have.
type word struct {
	text, help string
	flag       bool
	value      bool // the next word is the value of the flag
}

// levels returns the level of a node and those below it.
func levels(n *kong.Node, command string) []level {
	l := level{command: command}
	for _, child := range n.Children {
		if !child.Hidden {
			l.words = append(l.words, word{text: child.Name, help: summary(child.Help)})
		}
	}
	for _, p := range n.Positional {
		for _, value := range p.EnumSlice() {
			if value != "" {
				l.words = append(l.words, word{text: value})
			}
		}
	}
	for _, group := range n.AllFlags(true) {
		for _, f := range group {
			value := !f.IsBool() && !f.IsCounter()
			l.words = append(l.words, word{text: "--" + f.Name, help: summary(f.Help), flag: true, value: value})
			if f.Short != 0 {
				short := word{text: "-" + string(f.Short), help: summary(f.Help), flag: true, value: value}
				l.words = append(l.words, short)
			}
		}
	}
	slices.SortStableFunc(l.words, func(a, b word) int { return cmp.Compare(a.text, b.text) })
	all := []level{l}
	for _, child := range n.Children {
		if !child.Hidden {
			all = append(all, levels(child, strings.TrimSpace(command+" "+child.Name))...)
		}
	}
	return all
}

// summary is the first sentence of a help text.
func summary(help string) string {
	first, _, _ := strings.Cut(strings.ReplaceAll(help, "\n", " "), ". ")
	first, _, _ = strings.Cut(first, "; ")
	return strings.TrimSuffix(first, ".")
}

// quote returns a text as one word of a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// find returns the part that bash and zsh have in common: it sets command to the commands that were written.
func find(all []level, words string) string {
	var commands []string
	for _, l := range all[1:] {
		commands = append(commands, quote(l.command))
	}
	return fmt.Sprintf(`	local command='' word
	for word in "${%s}"; do
		case "${command:+$command }$word" in %s) command="${command:+$command }$word" ;; esac
	done
`, words, strings.Join(commands, "|"))
}

func bash(w io.Writer, name string, all []level) {
	fmt.Fprintf(w, "_%s() {\n%s	case $command in\n", name, find(all, "COMP_WORDS[@]:1:COMP_CWORD-1"))
	for _, l := range all {
		var words []string
		for _, a := range l.words {
			words = append(words, a.text)
		}
		fmt.Fprintf(w, "	%s) COMPREPLY=($(compgen -W %s -- \"${COMP_WORDS[COMP_CWORD]}\")) ;;\n",
			quote(l.command), quote(strings.Join(words, " ")))
	}
	fmt.Fprintf(w, "	esac\n}\ncomplete -o default -F _%s %s\n", name, name)
}

func zsh(w io.Writer, name string, all []level) {
	fmt.Fprintf(w, "#compdef %s\n_%s() {\n%s	local -a found\n	case $command in\n",
		name, name, find(all, "words[@]:1:$((CURRENT-2))"))
	for _, l := range all {
		fmt.Fprintf(w, "	%s) found=(\n", quote(l.command))
		for _, a := range l.words {
			fmt.Fprintf(w, "		%s\n", quote(a.text+":"+a.help))
		}
		fmt.Fprint(w, "	) ;;\n")
	}
	fmt.Fprintf(w, "	esac\n	_describe %s found || _files\n}\ncompdef _%s %s\n", quote(name), name, name)
}

func fish(w io.Writer, name string, all []level) {
	var first []string
	for _, a := range all[0].words {
		if !a.flag {
			first = append(first, a.text)
		}
	}
	for _, l := range all {
		when := "not __fish_seen_subcommand_from " + strings.Join(first, " ")
		if l.command != "" {
			when = "__fish_seen_subcommand_from " +
				strings.ReplaceAll(l.command, " ", "; and __fish_seen_subcommand_from ")
		}
		for _, a := range l.words {
			option := "-f -a " + quote(a.text)
			if a.flag {
				option = "-l " + strings.TrimPrefix(a.text, "--")
				if !strings.HasPrefix(a.text, "--") {
					option = "-s " + strings.TrimPrefix(a.text, "-")
				}
				if a.value {
					option += " -r"
				}
			}
			fmt.Fprintf(w, "complete -c %s -n %s %s -d %s\n", name, fishQuote(when), option, fishQuote(a.help))
		}
	}
}

// fishQuote returns a text as one word of fish, where a backslash escapes within quotes.
func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
