"""Access files for tests; every token is made by the server's own command."""

import subprocess

from .server_process import SERVER


def new_token(name, role):
    """A token, and its line for the access file."""
    made = subprocess.run(
        [SERVER, f"--new_token={name}:{role}"], check=True, capture_output=True, text=True
    )
    token, line = made.stdout.splitlines()
    return token, line


class AccessFile:
    """`tokens["alice"]` is the token of a caller; `AccessFile(path, alice="user", ...)`."""

    def __init__(self, path, **roles):
        self.path = path
        self.tokens = {}
        self.lines = {}
        for name, role in roles.items():
            self.add(name, role)

    def add(self, name, role):
        self.tokens[name], self.lines[name] = new_token(name, role)
        self._write()

    def remove(self, name):
        del self.lines[name]
        self._write()

    def add_certificate(self, name, role):
        self.lines[name] = f"{name} {role} certificate"
        self._write()

    def _write(self):
        """As a careful administrator: a new file, renamed into place."""
        new = self.path.with_suffix(".new")
        new.write_text("# Made by a test.\n" + "\n".join(self.lines.values()) + "\n")
        new.rename(self.path)

    @property
    def flag(self):
        return f"--access_file={self.path}"


def bearer(token):
    return [("authorization", f"Bearer {token}")]
