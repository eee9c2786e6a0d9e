#!/bin/sh
# release.sh COMMAND VERSION Makes a release of all modules of the repository under one version, such as
# v0.2.0.
#
#   set     writes the version into each go.mod and go.work, and with the date into the section of CHANGELOG.md
#           that has none, and removes from the documents what is true only before, from
#           <!-- before v0.1.0 --> to <!-- end -->; undone by git restore
#   check   says what is not ready; changes nothing
#   prove   tags a throw-away clone, and shows that the go command gets and compiles each module from its tags
#           in an empty folder, that the "go get" and "go install" lines of the documents work, and that
#           gorelease accepts the version; changes nothing. Modules of others come from the module cache if
#           they are there, else from GOPROXY. With GOPROXY=off the proof is offline, and leaves gorelease out
#           where the module cache has not all that it asks for.
#   tag     checks, and tags HEAD once for each module; pushes nothing
#   untag   removes these tags, as long as origin does not have them
#
# MODULES limits prove to some folders, such as MODULES=". policyfile".
set -eu
cd "$(dirname "$0")/.."

root=github.com/trypema/trypema
gorelease=golang.org/x/exp/cmd/gorelease@v0.0.0-20261113113407-e3970619a1a4
go=${GO:-go}
command=${1:-}
version=${2:-}

case $command in
set | check | prove | tag | untag) ;;
*)
	echo "release: the command is \"$command\"; it must be one of set, check, prove, tag, untag" >&2
	exit 2
	;;
esac
number='\(0\|[1-9][0-9]*\)'
if ! expr "$version" : "v[01]\.$number\.$number\(-[0-9A-Za-z.-][0-9A-Za-z.-]*\)\{0,1\}\$" >/dev/null; then
	echo "release: VERSION is \"$version\"; it must be like v0.2.0 or v1.0.0-rc.1, and v0 or v1" >&2
	exit 2
fi

# Folders of all modules, and of those that are released. The others must build with what is released.
all=$(git ls-files '*go.mod' | sed 's|/*go\.mod$||; s|^$|.|')
released=$(echo "$all" | grep -vx -e examples -e internal/bench -e internal/thirdparty)

path() { [ "$1" = . ] && echo "$root" || echo "$root/$1"; }
tag() { [ "$1" = . ] && echo "$version" || echo "$1/$version"; }
tags() { for module in $released; do tag "$module"; done; }

# undated is the heading of a section of CHANGELOG.md for the coming release.
undated='^## \(Unreleased\|v[^ ]*\)$'

# required FOLDER prints the modules of this repository that the module requires, with their versions.
required() {
	awk -v root="$root" '
		{ sub(/^require /, "") }
		$1 == root || index($1, root "/") == 1 { print $1, $2 }' "$1/go.mod"
}

set_version() {
	for module in $all; do
		required "$module" | while read -r other _; do
			$go mod edit -require "$other@$version" "$module/go.mod"
		done
	done
	tmp=$(mktemp)
	sed "s|\($root[^ ]*\) v[^ ]* =>|\1 $version =>|" go.work >"$tmp"
	cat "$tmp" >go.work
	sed "s/$undated/## $version ($(date -u +%F))/" CHANGELOG.md >"$tmp"
	cat "$tmp" >CHANGELOG.md
	for document in README.md docs/*.md; do
		! grep -q '^<!-- before v' "$document" || {
			sed '/^<!-- before v/,/^<!-- end -->$/d' "$document" >"$tmp"
			cat "$tmp" >"$document"
		}
	done
	rm "$tmp"
}

wrong=0
fault() {
	echo "release: $*" >&2
	wrong=1
}

check() {
	[ -z "$(git status --porcelain)" ] || fault "the work tree has changes that are not committed"
	grep -q "^## $version (" CHANGELOG.md || fault "CHANGELOG.md: has no section \"## $version\" with a date"
	! grep -q "$undated" CHANGELOG.md || fault "CHANGELOG.md: has a section \"$(grep "$undated" CHANGELOG.md)\" without a date"
	! grep -Hn '^<!-- before v' README.md docs/*.md >&2 || fault "documents say what is true only before $version"
	for module in $released; do
		if git rev-parse -q --verify "refs/tags/$(tag "$module")" >/dev/null; then
			fault "the tag $(tag "$module") exists"
		fi
		! grep -Hn '^replace\|^exclude\|^toolchain' "$module/go.mod" >&2 ||
			fault "$module/go.mod: has a line that must not be released"
	done
	for module in $all; do
		others=$(required "$module" | grep -v " $version\$" || true)
		[ -z "$others" ] || fault "$module/go.mod: requires" $others"; it must require $version"
	done
	others=$(sed -n "s|.*\($root[^ ]* v[^ ]*\) =>.*|\1|p" go.work | grep -v " $version\$" || true)
	[ -z "$others" ] || fault "go.work: replaces" $others"; it must replace $version"
	[ "$wrong" = 0 ] || exit 1
}

# at_origin prints which of the tags origin has.
at_origin() {
	! git remote get-url origin >/dev/null 2>&1 ||
		git ls-remote --tags origin $(tags | sed 's|^|refs/tags/|') | sed 's|.*refs/tags/||'
}

make_tags() {
	made=
	for name in $(tags); do
		git tag -a -m "$name" "$name" || {
			[ -z "$made" ] || git tag -d $made >/dev/null
			echo "release: no tag was made" >&2
			exit 1
		}
		made="$made $name"
	done
}

# prove works in the folder $tmp: clone is the repository as it is here, made is where the go command puts the
# modules that it finds there by their tags, and cache is the module cache of the user that has nothing yet.
prove() {
	tmp=$(mktemp -d)
	trap 'chmod -R u+w "$tmp" && rm -rf "$tmp"' EXIT
	trap 'exit 130' INT TERM
	here=$PWD usual=$($go env GOMODCACHE) proxy=$($go env GOPROXY)
	if ! GOBIN="$tmp/bin" GOFLAGS= GOWORK=off GOPROXY="file://$usual/cache/download,$proxy" \
		$go install $gorelease >"$tmp/said" 2>&1; then
		cat "$tmp/said" >&2
		[ "$proxy" = off ] || exit 1
		echo "release: gorelease is not in the module cache: the API is not compared with the version before" >&2
	fi

	# The clone has what is not committed yet, too, so that it is proved before it is committed.
	mkdir "$tmp/clone"
	git ls-files --cached --others --exclude-standard | sort -u | while IFS= read -r file; do
		[ ! -e "$file" ] || echo "$file"
	done | tar -cf - -T - | tar -xf - -C "$tmp/clone"
	(
		cd "$tmp/clone"
		git init -q -b main
		git add -A
		git -c user.name=release -c user.email=release@example.com commit -q -m "$version"
		scripts/release.sh set "$version"
		git add -A
		git -c user.name=release -c user.email=release@example.com commit -q --allow-empty -m "$version"
		for name in $(tags); do git tag "$name"; done
	)

	# The go command itself finds the modules by the tags, as it would at the public repository.
	for module in $released; do
		GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$tmp/clone.insteadOf" GIT_CONFIG_VALUE_0="https://$root" \
			GOMODCACHE="$tmp/made" GOPROXY=direct GONOSUMDB="$root" GOPRIVATE= GOWORK=off GOFLAGS=-modcacherw \
			$go -C "$tmp" mod download "$(path "$module")@$version"
	done

	export GOPROXY="file://$tmp/made/cache/download,file://$usual/cache/download,$proxy"
	export GOMODCACHE="$tmp/cache" GOBIN="$tmp/bin" GOWORK=off GOFLAGS="-modcacherw -trimpath"
	export GONOSUMDB="$root,$root/*"
	[ "$proxy" != off ] || export GOSUMDB=off # what is in the module cache was verified when it came there

	for module in ${MODULES:-$released}; do
		empty_folder
		quietly $go mod init example
		case $module in
		cmd/*)
			quietly $go install "$(path "$module")@$version"
			said=$("$tmp/bin/${module##*/}" --version)
			case $said in
			"${module##*/} $version "*) echo "proved: go install $(path "$module")@$version, which says: $said" ;;
			*)
				echo "release: ${module##*/} --version says \"$said\", not $version" >&2
				exit 1
				;;
			esac
			;;
		internal/*)
			quietly $go get "$(path "$module")@$version"
			echo "proved: go get $(path "$module")@$version, which only cmd/trypema imports"
			;;
		*)
			quietly $go get "$(path "$module")@$version"
			packages=$($go list "$(path "$module")/..." | grep -v /internal/)
			{
				echo "package main"
				for package in $packages; do echo "import _ \"$package\""; done
				echo "func main() {}"
			} >main.go
			quietly $go mod tidy
			quietly $go build -o "$tmp/program" .
			"$tmp/program"
			echo "proved: go get $(path "$module")@$version, which compiles:" $packages
			;;
		esac
		cd "$here"
	done

	grep -h '^    go \(get\|install\) ' README.md docs/*.md | sort -u | while read -r line; do
		empty_folder
		rm -rf "$tmp/bin/trypema"
		quietly $go mod init example
		quietly sh -c "$line"
		if [ -e "$tmp/bin/trypema" ]; then "$tmp/bin/trypema" --version; else grep "$root" go.mod; fi >"$tmp/got"
		if grep -v " $version\( .*\)\{0,1\}\$" "$tmp/got" >&2; then
			echo "release: $line: gets that, not $version" >&2
			exit 1
		fi
		echo "proved: $line"
		cd "$here"
	done

	[ -x "$tmp/bin/gorelease" ] || return 0
	for module in ${MODULES:-$released}; do
		case $module in cmd/* | internal/*) continue ;; esac # they have no API
		# go.sum has no sums of the modules of this repository, which are not known before the tags.
		cd "$tmp/clone/$module"
		quietly $go mod tidy
		git add -A
		git -c user.name=release -c user.email=release@example.com commit -q --allow-empty -m "sums"
		# gorelease asks for the newest versions of all that is required, even by tests of others.
		if [ "$proxy" = off ] && ! $go list -m -u all >/dev/null 2>"$tmp/said"; then
			echo "release: gorelease is left out for $(path "$module"): the module cache lacks what it asks for" >&2
			cd "$here"
			continue
		fi
		base=$(before "$module")
		quietly "$tmp/bin/gorelease" -base="$base" -version="$version"
		echo "proved: gorelease accepts $(path "$module")@$version after $base"
		cd "$here"
	done
}

# before FOLDER prints the newest version of a module that was released before, or none.
before() {
	prefix=$(tag "$1")
	prefix=${prefix%"$version"}
	last=$(git -C "$here" tag --list "${prefix}v*" --sort=-version:refname | grep -vx "$prefix$version" | sed -n 1p)
	last=${last#"$prefix"}
	echo "${last:-none}"
}

# empty_folder makes an empty folder, and goes there.
empty_folder() {
	rm -rf "$tmp/empty"
	mkdir "$tmp/empty"
	cd "$tmp/empty"
}

# quietly runs a command, and prints what it says only if it fails.
quietly() {
	"$@" >"$tmp/said" 2>&1 || {
		cat "$tmp/said" >&2
		echo "release: $* failed in $PWD" >&2
		exit 1
	}
}

case $command in
set) set_version ;;
check)
	check
	echo "ready for $version"
	;;
prove) prove ;;
tag)
	check
	make_tags
	echo "Tagged. The release is published by:"
	echo "  git push --atomic origin main" $(tags)
	;;
untag)
	there=$(at_origin)
	if [ -n "$there" ]; then
		echo "release: origin has" $there"; a version that was published stays: release another one" >&2
		exit 1
	fi
	for name in $(tags); do
		! git rev-parse -q --verify "refs/tags/$name" >/dev/null || git tag -d "$name"
	done
	;;
esac
