#!/bin/sh
# book.sh MDBOOK OUT: builds the pages as a book.
#
# README, change log and recipes are part of it and lie outside docs/, so it is built from a copy in
# which the whole tree of pages is the book's source.
set -eu
mdbook=$1 out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
copy=$out.src
rm -rf "$copy" "$out"
mkdir -p "$copy"
cd "$root"
cp -r README.md CHANGELOG.md docs recipes "$copy"
mv "$copy/docs/book.toml" "$copy"
sed -e 's#](\([^.]\)#](docs/\1#' -e 's#](\.\./#](#' docs/SUMMARY.md >"$copy/SUMMARY.md"
rm "$copy/docs/SUMMARY.md"
# A folder's page is its index; mdBook would rename the pages but not the links to them.
find "$copy" -name '*.md' -exec sed -i 's#README\.md\([)\#]\)#index.md\1#g' {} +
find "$copy" -name README.md | while read -r page; do mv "$page" "${page%README.md}index.md"; done
"$mdbook" build --dest-dir "$out" "$copy"
rm -rf "$copy" "$out/book.toml"
echo "the book is in $out/index.html"
