"""The models over HTTP, in the OpenAI protocol: `osler serve`."""
