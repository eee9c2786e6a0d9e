#!/bin/sh
# release.sh VERSION Says what is not ready for a release under a version such as v0.2.0, or, if nothing is,
# which tags make it one. Changes nothing.
set -eu
cd "$(dirname "$0")/.."

version=${1:-}
wrong=0
fault() {
	echo "release: $*" >&2
	wrong=1
}

case $version in
v[0-9]*.[0-9]*.[0-9]*) ;;
*)
	echo "release: VERSION is \"$version\"; it must be like v0.2.0" >&2
	exit 2
	;;
esac
[ -z "$(git status --porcelain)" ] || fault "the work tree has changes that are not committed"
grep -q "^## $version\$" CHANGELOG.md || fault "CHANGELOG.md: has no section \"## $version\""
! grep -q '^## Unreleased$' CHANGELOG.md || fault "CHANGELOG.md: has a section \"## Unreleased\"; it becomes \"## $version\""

tags=
for mod in $(git ls-files '*go.mod'); do
	module=$(dirname "$mod")
	case $module in
	examples | internal/bench | internal/thirdparty) continue ;; # are never released, but must build with what is
	.) tag=$version ;;
	*) tag=$module/$version ;;
	esac
	tags="$tags $tag"
	if git rev-parse -q --verify "refs/tags/$tag" >/dev/null; then
		fault "the tag $tag is there already"
	fi
	! grep -n '^replace\|^exclude' "$mod" || fault "$mod: replaces or excludes something, which others would not see"
	others=$(awk '/^(require )?[\t ]*github.com\/trypema\/trypema/ { sub(/^require /, ""); print $1, $2 }' "$mod" | grep -v " $version\$" || true)
	[ -z "$others" ] || fault "$mod: requires $others, not $version"
done
[ "$wrong" = 0 ] || exit 1
echo "Ready. The release is made by:"
echo "  git tag$(printf ' && git tag %s' $tags | sed 's/^ && git tag//')"
echo "  git push origin$(printf ' %s' $tags)"
