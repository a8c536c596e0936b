"""Cloudflare Workers AI's own endpoint, `/ai/run/{model}`: https://developers.cloudflare.com/workers-ai/models/"""
