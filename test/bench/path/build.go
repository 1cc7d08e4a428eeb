package path

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// build builds the licensed program of a source tree and returns its path. The tree is a directory, or a commit of the
// repository that c.Tree is of.
func build(ctx context.Context, c *Config, tree, name string) (string, error) {
	dir := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	source := tree
	if info, err := os.Stat(tree); err != nil || !info.IsDir() {
		source = filepath.Join(dir, "source")
		if err := os.MkdirAll(source, 0o755); err != nil {
			return "", err
		}
		if err := extract(ctx, c.Tree, tree, source); err != nil {
			return "", err
		}
	}
	program := filepath.Join(dir, "licensed")
	cmd := exec.CommandContext(ctx, "go", "build", "-C", source, "-o", program, "./cmd/licensed")
	cmd.Env = append(os.Environ(), "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build licensed of %s: %w\n%s", tree, err, out)
	}
	return program, nil
}

// extract writes the files of a commit to a directory.
func extract(ctx context.Context, repository, commit, to string) error {
	archive := to + ".tar"
	for _, args := range [][]string{
		{"git", "-C", repository, "archive", "--output", archive, commit + "^{commit}"},
		{"tar", "-x", "-f", archive, "-C", to},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("get the sources of %q, which is neither a directory nor a commit of %s: %w: %s",
				commit, repository, err, strings.TrimSpace(string(out)))
		}
	}
	return os.Remove(archive)
}
