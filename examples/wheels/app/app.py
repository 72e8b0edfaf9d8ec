"""Greets whoever is named in the path."""

from bottle import Bottle

app = Bottle()


@app.get("/hello/<name>")
def hello(name):
    return {"hello": name}


if __name__ == "__main__":
    app.run(host="0.0.0.0", port=8080, quiet=True)
