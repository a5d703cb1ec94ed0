"""The work of one worker, whoever runs it, and a pool of one in this process. Imports no Ray."""
