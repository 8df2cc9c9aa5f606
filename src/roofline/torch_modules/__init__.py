"""Models read from their code: `Model.from_module` of a torch module, `Model.load(..., read="code")` of a configuration that transformers has the code of."""
